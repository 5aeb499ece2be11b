// DigestCheck: whether the digest that writes have kept (digest.h) is still that of what is in the
// store.
//
// The kept digest follows what is written, not the memory that it was written to. So all live
// records are hashed anew, in slices over many turns, as of the revision at which the check began,
// which is pinned meanwhile. It costs nothing but its slices. Owner's thread only; ends before the
// store does.
#pragma once

#include <cstddef>

#include "conclave/server/mvcc/digest.h"
#include "conclave/server/mvcc/range_cursor.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::mvcc {

class DigestCheck {
 public:
  // No transaction may be open.
  explicit DigestCheck(Store* store);

  // Looks at so many further records, or bytes; false when there are no more.
  bool Advance(size_t records, size_t bytes);
  // Whether all that were looked at are as they were written. After Advance gave false.
  bool Matches() const { return sum_ == expected_; }

 private:
  RangeCursor cursor_;
  const Digest expected_;
  Digest sum_;
};

}  // namespace conclave::mvcc
