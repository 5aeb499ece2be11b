#include "conclave/server/mvcc/key_index.h"

#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::mvcc {
namespace {

// Without the tombstone the revision of its deletion has no record either.
bool DropsItsTombstone() {
  return MUTANT("compaction-drops-the-tombstone-at-its-revision") ||
         MUTANT("revision-of-the-newest-record-restored");
}

}  // namespace

Slot Slot::Of(const Record* const* records, size_t count) {
  if (count == 1) return Of(records[0]);
  KeyIndex* history = KeyIndex::New(static_cast<uint32_t>(count));
  std::memcpy(history->records, records, count * sizeof(const Record*));
  history->size = static_cast<uint32_t>(count);
  return Slot(reinterpret_cast<uintptr_t>(history) | kHistory |
              (records[count - 1]->tombstone() ? kDead : 0));
}

void Slot::Push(const Record* record) {
  KeyIndex* history;
  if (!has_history()) {
    history = KeyIndex::New(2);
    history->records[0] = this->record();
    history->size = 1;
  } else {
    history = index();
    if (history->size == history->capacity) {
      KeyIndex* larger = KeyIndex::New(history->capacity + history->capacity / 2 + 1);
      std::memcpy(larger->records, history->records, history->size * sizeof(const Record*));
      larger->size = history->size;
      std::free(history);
      history = larger;
    }
  }
  CONCLAVE_CHECK(history->records[history->size - 1]->revision() < record->revision());
  history->records[history->size++] = record;
  word_ = reinterpret_cast<uintptr_t>(history) | kHistory | (record->tombstone() ? kDead : 0);
}

void Slot::DropOlder(int64_t revision, absl::FunctionRef<void(const Record&)> dropping) {
  const auto drop = [&](const Record* record) {
    dropping(*record);
    RecordRef::Drop(record);
  };
  if (!has_history()) {
    const Record* only = record();
    if (only->tombstone() && (only->mod_revision() < revision || DropsItsTombstone())) {
      REACHED("mvcc: a key that was deleted is forgotten");
      drop(only);
      word_ = 0;
    }
    return;
  }
  KeyIndex* history = index();
  const uint32_t behind = Behind(revision);
  if (behind == 0) return;
  // [0, older) goes; the newest <= revision stays, and so does everything of the revision itself.
  uint32_t older = behind - 1;
  while (older > 0 && history->records[older - 1]->mod_revision() == revision) {
    REACHED("mvcc: a key was written twice in the compacted revision");
    --older;
  }
  const Record* newest = history->records[behind - 1];
  if (newest->tombstone() && (newest->mod_revision() < revision || DropsItsTombstone())) {
    REACHED("mvcc: a tombstone goes with its history");
    older = behind;
  }
  if (older == 0) return;
  for (uint32_t i = 0; i < older; ++i) drop(history->records[i]);
  history->size -= older;
  std::memmove(history->records, history->records + older, history->size * sizeof(const Record*));
  if (history->size > 1 && history->size >= history->capacity / 4) return;
  if (history->size <= 1) {
    *this = history->size == 0 ? Slot(0) : Of(history->records[0]);
  } else {
    KeyIndex* smaller = KeyIndex::New(history->size + 1);
    std::memcpy(smaller->records, history->records, history->size * sizeof(const Record*));
    smaller->size = history->size;
    word_ = reinterpret_cast<uintptr_t>(smaller) | (word_ & kTags);
  }
  std::free(history);
}

void Slot::Clear() {
  for (uint32_t i = 0; i < size(); ++i) RecordRef::Drop(record(i));
  if (has_history()) std::free(index());
  word_ = 0;
}

}  // namespace conclave::mvcc
