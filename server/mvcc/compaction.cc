// Store: compaction and pins.
//
// Compact(C) only moves the compact revision; from then on every answer is as if all of this were
// done already: of the revisions below C, each key keeps the newest one at or below C, and that too
// goes if it is a tombstone. Revisions at C itself all stay (until a later compaction), so a watch
// from C hears them.
//
// What goes is found without looking at what stays: a record becomes garbage because a later one of
// its key is
// <= C, so a walk over the log from the last freed revision to C, dropping what is older than each
// key's newest, meets all of it. The walk is sliced; a pin holds its goal back.

#include <algorithm>

#include "conclave/base/check.h"
#include "conclave/base/reached.h"
#include "conclave/server/mvcc/revision_log.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/mvcc/tree_index.h"

namespace conclave::mvcc {

absl::Status Store::Compact(int64_t revision) {
  CONCLAVE_CHECK(!txn_open_, "compaction inside a transaction");
  if (revision <= compact_revision_) return CompactedError();
  if (revision > current_revision_) return FutureRevisionError();
  compact_revision_ = revision;
  return absl::OkStatus();
}

int64_t Store::FreeTarget() const {
  return pins_->empty() ? compact_revision_ : std::min(compact_revision_, pins_->begin()->first);
}

bool Store::compaction_pending() const {
  return free_position_.has_value() || freed_revision_ < FreeTarget();
}

bool Store::CompactSlice(size_t budget) {
  CONCLAVE_CHECK(!txn_open_, "compaction inside a transaction");
  for (; budget > 0 && compaction_pending(); --budget) {
    if (!free_position_.has_value()) {
      if (FreeTarget() < compact_revision_) REACHED("mvcc: a pin holds compaction back");
      free_target_ = FreeTarget();
      // Begins with the records of the last goal: they were all kept then.
      free_position_ = Revision{.main = freed_revision_, .sub = 0};
    }
    const RecordRef record(log_->First(*free_position_));
    if (!record || record->mod_revision() > free_target_) {
      freed_revision_ = free_target_;
      free_position_.reset();
      continue;
    }
    const Revision at = record->revision();
    index_->DropOlder(record->key(), free_target_, [&](const Record& garbage) {
      --sizes_.records;
      sizes_.record_bytes -= static_cast<int64_t>(garbage.memory());
      log_->Remove(garbage.revision());
    });
    free_position_ = Revision{.main = at.main, .sub = at.sub + 1};
  }
  return compaction_pending();
}

Pin Store::PinAt(int64_t revision) {
  CONCLAVE_CHECK(revision >= compact_revision_, revision, " is compacted");
  return Pin(pins_, revision);
}

bool Store::Newest(const Record& record, int64_t revision) const {
  const Slot* slot = index_->Find(record.key());
  return slot != nullptr && slot->At(revision) == &record;
}

bool Store::Garbage(const Record& record, int64_t compact_revision) const {
  if (record.mod_revision() >= compact_revision) return false;
  return record.tombstone() || !Newest(record, compact_revision);
}

}  // namespace conclave::mvcc
