// Record: one immutable revision of one key, in one allocation: a header of 48 bytes, then key,
// then value.
//
// Index, revision log, watch events, write buffers of other threads and snapshot writers all share
// it by RecordRef; a value is therefore stored once, however many hold it. The last reference may
// be dropped on any thread. A record never changes after MakeRecord, so reading it needs no lock.
//
// A tombstone (the deletion of a key) has no value, and its create, version and lease are 0, as the
// wire has it: a delete event carries only key and mod_revision.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "conclave/server/mvcc/revision.h"

namespace conclave::mvcc {

class Record;
class RecordRef;

// What a record is made of; views need to live only during MakeRecord.
struct RecordFields {
  std::string_view key;
  std::string_view value;
  Revision revision;
  int64_t create_revision = 0;
  int64_t version = 0;
  int64_t lease = 0;
  bool tombstone = false;
};

// Limits: key and value below 4 GiB each, 0 <= sub < 2^31 (checked).
[[nodiscard]] RecordRef MakeRecord(const RecordFields& fields);

class Record {
 public:
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  std::string_view key() const { return {data(), key_size_}; }
  std::string_view value() const { return {data() + key_size_, value_size_}; }
  Revision revision() const { return {main_, static_cast<int64_t>(sub_ & ~kTombstone)}; }
  int64_t mod_revision() const { return main_; }
  int64_t create_revision() const { return create_revision_; }
  int64_t version() const { return version_; }
  int64_t lease() const { return lease_; }
  bool tombstone() const { return (sub_ & kTombstone) != 0; }
  // A put that made the key (again): no earlier version is behind it.
  bool creation() const { return version_ == 1; }

  // Bytes of the allocation, without malloc's own.
  size_t memory() const { return sizeof(Record) + key_size_ + value_size_; }

  // All of it will be read soon, and is hardly in a cache: its first kilobyte is sent for.
  void Prefetch() const {
    constexpr size_t kLine = 64;
    const size_t end = std::min<size_t>(memory(), 1024);
    const char* const begin = reinterpret_cast<const char*>(this);
    for (size_t at = kLine; at < end; at += kLine) __builtin_prefetch(begin + at);
  }

 private:
  friend class RecordRef;
  friend RecordRef MakeRecord(const RecordFields& fields);
  static constexpr uint32_t kTombstone = uint32_t{1} << 31;

  Record() = default;
  const char* data() const { return reinterpret_cast<const char*>(this + 1); }
  static void Destroy(const Record* record);

  mutable std::atomic<uint32_t> references_{1};
  uint32_t key_size_ = 0;
  uint32_t value_size_ = 0;
  uint32_t sub_ = 0;  // with the tombstone bit
  int64_t main_ = 0;
  int64_t create_revision_ = 0;
  int64_t version_ = 0;
  int64_t lease_ = 0;
};
static_assert(sizeof(Record) == 48);

// A counted reference; null by default. Thread-safe as a shared_ptr is.
class RecordRef {
 public:
  constexpr RecordRef() = default;
  // Shares a record that somebody else keeps alive meanwhile.
  explicit RecordRef(const Record* record) : record_(record) {
    if (record_ != nullptr) record_->references_.fetch_add(1, std::memory_order_relaxed);
  }
  RecordRef(const RecordRef& other) : RecordRef(other.record_) {}
  RecordRef(RecordRef&& other) noexcept : record_(std::exchange(other.record_, nullptr)) {}
  RecordRef& operator=(RecordRef other) noexcept {
    std::swap(record_, other.record_);
    return *this;
  }
  ~RecordRef() { Drop(record_); }

  const Record* get() const { return record_; }
  const Record& operator*() const { return *record_; }
  const Record* operator->() const { return record_; }
  explicit operator bool() const { return record_ != nullptr; }
  friend bool operator==(const RecordRef&, const RecordRef&) = default;

  // For containers that hold raw pointers with a reference each: Release gives the reference away,
  // Adopt takes it over, Drop gives it back.
  [[nodiscard]] const Record* Release() { return std::exchange(record_, nullptr); }
  [[nodiscard]] static RecordRef Adopt(const Record* record) {
    RecordRef ref;
    ref.record_ = record;
    return ref;
  }
  static void Drop(const Record* record) {
    if (record != nullptr && record->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      Record::Destroy(record);
    }
  }

 private:
  const Record* record_ = nullptr;
};

}  // namespace conclave::mvcc
