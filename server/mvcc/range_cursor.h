// RangeCursor: a range at one fixed revision, read in slices over several turns while writes go on.
//
// It pins its revision, so compaction cannot remove what it is still to visit; reads are as of that
// revision whatever happens meanwhile. Owner's thread only; ends before the store does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/record.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::mvcc {

class RangeCursor {
 public:
  RangeCursor(RangeCursor&&) = default;
  RangeCursor& operator=(RangeCursor&&) = default;

  // The next key's record in ascending order of keys; null at the end, and ever after.
  // Amortised O(1) within a turn, O(log n) after the store was written to.
  RecordRef Next();

  // The revision that is read: a number, never kLatest.
  int64_t revision() const { return pin_.revision(); }
  bool done() const { return done_; }

 private:
  friend class Store;
  RangeCursor(Store* store, const KeyRange& range, int64_t revision);
  KeyRange range() const;

  Store* store_;
  Pin pin_;
  std::string begin_;
  std::string end_;
  bool single_;
  bool open_ended_;
  bool done_ = false;
  RecordRef last_;  // its key is where the cursor stands
  // Where `last_` stands in the index, good as long as the index has the same shape.
  uint64_t shape_ = 0;
  void* leaf_ = nullptr;
  size_t slot_ = 0;
};

}  // namespace conclave::mvcc
