// KeyIndex and Slot: the revisions of one key.
//
// Most keys have exactly one revision that matters: the head. So a Slot is one tagged word that is
// either the head's Record itself or a KeyIndex, a sorted vector of all revisions that compaction
// has left (the field's generations: a tombstone ends one, and a record of version 1 begins the
// next). A second tag bit says whether the head is a tombstone, so that live keys are counted
// without a look at any record.
//
// A slot owns one reference to each of its records.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "conclave/base/check.h"
#include "conclave/server/mvcc/record.h"

namespace conclave::mvcc {

// Revisions of one key, ascending; in one allocation that grows by half.
struct KeyIndex {
  uint32_t size;
  uint32_t capacity;
  const Record* records[1];  // `capacity` of them

  static KeyIndex* New(uint32_t capacity) {
    const size_t bytes = offsetof(KeyIndex, records) + capacity * sizeof(const Record*);
    auto* index = static_cast<KeyIndex*>(std::malloc(bytes));
    CONCLAVE_CHECK(index != nullptr, "out of memory for a key's index");
    index->size = 0;
    index->capacity = capacity;
    return index;
  }
};

class Slot {
 public:
  Slot() = default;
  // Takes over the reference.
  static Slot Of(const Record* record) {
    return Slot(reinterpret_cast<uintptr_t>(record) | (record->tombstone() ? kDead : 0));
  }

  // Takes over the references; ascending, at least one.
  static Slot Of(const Record* const* records, size_t count);

  bool live() const { return (word_ & kDead) == 0; }
  bool has_history() const { return (word_ & kHistory) != 0; }

  const Record* head() const {
    if (!has_history()) [[likely]]
      return record();
    return index()->records[index()->size - 1];
  }
  std::string_view key() const { return head()->key(); }

  void Prefetch() const { __builtin_prefetch(reinterpret_cast<const void*>(word_ & ~kTags)); }

  // The newest record with main <= revision, tombstones included; null if there is none.
  const Record* At(int64_t revision) const {
    const Record* newest = head();
    if (newest->mod_revision() <= revision) return newest;
    if (!has_history()) return nullptr;
    const uint32_t behind = Behind(revision);
    return behind == 0 ? nullptr : index()->records[behind - 1];
  }

  // Number of records with main < revision.
  uint32_t CountBefore(int64_t revision) const {
    if (has_history()) return Behind(revision - 1);
    return record()->mod_revision() < revision ? 1 : 0;
  }

  // Makes `record` the head; takes over the reference.
  void Push(const Record* record);

  // Drops all records older than the newest with main <= revision, but none with main == revision,
  // and that newest one too if it is a tombstone with main < revision. Tells each before its
  // reference is dropped. The slot may be empty afterwards.
  void DropOlder(int64_t revision, absl::FunctionRef<void(const Record&)> dropping);
  bool empty() const { return word_ == 0; }

  // Drops everything.
  void Clear();

  // Number of records, and the i-th, oldest first.
  uint32_t size() const { return empty() ? 0 : has_history() ? index()->size : 1; }
  const Record* record(uint32_t i) const { return has_history() ? index()->records[i] : record(); }

 private:
  static constexpr uintptr_t kHistory = 1;
  static constexpr uintptr_t kDead = 2;
  static constexpr uintptr_t kTags = 3;

  explicit Slot(uintptr_t word) : word_(word) {}
  const Record* record() const { return reinterpret_cast<const Record*>(word_ & ~kTags); }
  KeyIndex* index() const { return reinterpret_cast<KeyIndex*>(word_ & ~kTags); }
  // How many records of the history have main <= revision.
  uint32_t Behind(int64_t revision) const {
    const KeyIndex* history = index();
    const auto* at = std::upper_bound(
        history->records, history->records + history->size, revision,
        [](int64_t main, const Record* record) { return main < record->mod_revision(); });
    return static_cast<uint32_t>(at - history->records);
  }

  uintptr_t word_;
};
static_assert(sizeof(Slot) == 8);

}  // namespace conclave::mvcc
