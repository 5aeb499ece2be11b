#include "conclave/server/mvcc/range_cursor.h"

#include "conclave/base/check.h"
#include "conclave/server/mvcc/tree_index.h"

namespace conclave::mvcc {

RangeCursor::RangeCursor(Store* store, const KeyRange& range, int64_t revision)
    : store_(store),
      pin_(store->PinAt(revision)),
      begin_(range.begin()),
      end_(range.end()),
      single_(range.single()),
      open_ended_(range.open_ended()),
      done_(range.empty()) {
  CONCLAVE_CHECK(revision <= store->current_revision());
}

KeyRange RangeCursor::range() const {
  if (single_) return KeyRange::Single(begin_);
  return open_ended_ ? KeyRange::From(begin_) : KeyRange::Between(begin_, end_);
}

RecordRef RangeCursor::Next() {
  if (done_) return RecordRef();
  const TreeIndex& index = *store_->index_;
  TreeIndex::Position at;
  if (!last_) {
    at = index.Seek(begin_);
  } else if (shape_ == index.shape()) {
    at = index.Next({.leaf = static_cast<TreeIndex::Leaf*>(leaf_), .slot = slot_});
  } else {
    at = index.SeekBehind(last_->key());
  }
  const KeyRange range = this->range();
  for (; at; at = index.Next(at)) {
    const Slot& slot = TreeIndex::At(at);
    if (range.EndsBefore(slot.key())) break;
    const Record* record = slot.At(revision());
    if (record == nullptr || record->tombstone()) continue;
    shape_ = index.shape();
    leaf_ = at.leaf;
    slot_ = at.slot;
    last_ = RecordRef(record);
    return last_;
  }
  done_ = true;
  last_ = RecordRef();
  return RecordRef();
}

}  // namespace conclave::mvcc
