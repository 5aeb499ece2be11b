// HashKV: the checksum that members (and etcd's tools) compare, in etcd's definition.
//
// CRC32C over "key", and then for each revision <= the asked one, in order: 8 bytes big-endian
// main, '_', 8 bytes big-endian sub, 't' if it is a tombstone; then the KeyValue as protobuf (a
// tombstone's holds only the key). Revisions at or below the compact revision count only if they
// are still the newest of their key at the asked revision, and tombstones exactly at the compact
// revision do not count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::mvcc {

// The hash in slices, over several turns, while writes and compactions go on: the answer is as of
// the opening.
class HashKvCursor {
 public:
  // revision 0 = current. CompactedError, FutureRevisionError.
  static absl::StatusOr<HashKvCursor> Open(Store* store, int64_t revision);

  HashKvCursor(HashKvCursor&&) = default;
  HashKvCursor& operator=(HashKvCursor&&) = default;

  // Hashes `budget` records at most; true when the result is there.
  bool Advance(size_t budget);
  // Only after Advance gave true.
  const HashKvResult& result() const { return result_; }

 private:
  HashKvCursor(Store* store, int64_t revision);
  bool Counts(const Record& record) const;
  void Add(const Record& record);

  Store* store_;
  Pin pin_;
  HashKvResult result_;
  Revision next_{};
  bool nothing_lives_;  // no key exists at the revision
  bool done_ = false;
  std::string buffer_;
};

}  // namespace conclave::mvcc
