// DatabaseTask: the state as a bbolt file of etcd's, written over many turns while entries are
// applied. What etcd, its tools and `conclave snapshot` read.
//
// The file says at its beginning how long it is, and who downloads it is told beforehand. So the
// task goes over the state twice, at one pinned revision: it measures, then it writes. Nothing is
// spooled: no disk is needed, none can be full, and memory holds a page for each level of the tree.
// What it costs is the second walk, some 0.2 us for each record.
//
// As etcd wants it: history since the compact revision is in it; a lease gets its whole TTL again
// in the restored cluster, as after a change of leader in etcd (a remaining TTL in the file would
// bind etcd's leases to that for good where lease checkpoints are off, which is its default).
//
// Thread: the owner of the state, which must outlive the task.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/server/apply/state_machine.h"
#include "conclave/server/bbolt/writer.h"
#include "conclave/server/lease/lessor.h"
#include "conclave/server/mvcc/snapshot_cursor.h"

namespace conclave::backup {

class DatabaseTask {
 public:
  // Fixes the state as it is now. O(leases).
  explicit DatabaseTask(apply::StateMachine* state);

  // Looks at *budget records and leases at most, and takes them off it. True when bytes() is known.
  [[nodiscard]] bool Measure(size_t* budget);
  uint64_t bytes() const { return layout_->bytes(); }

  // Then: appends what comes next to *out, about `bytes` of it. False when that was all.
  [[nodiscard]] bool Write(size_t* budget, size_t bytes, std::string* out);

  const std::string& version() const { return version_; }

 private:
  using Pairs = std::vector<std::pair<std::string, std::string>>;  // by key
  enum class Stage : uint8_t { kFront, kKeys, kLeases, kBack, kDone };

  // Goes on with one pass; true when it has come to its end. Stops at about so many bytes.
  bool Advance(bbolt::Writer* writer, size_t* budget, size_t bytes);
  // True when the bucket is complete.
  bool AddKeys(bbolt::Writer* writer, size_t* budget, size_t bytes);
  bool AddLeases(bbolt::Writer* writer, size_t* budget, size_t bytes);

  std::string version_;  // the cluster's
  // The small buckets in front of the keys, and behind the leases; by name.
  std::vector<std::pair<std::string_view, Pairs>> front_;
  std::vector<std::pair<std::string_view, Pairs>> back_;
  std::vector<lease::LeaseImage> leases_;  // in the order of their encoded ids
  mvcc::SnapshotCursor cursor_;

  // Of the pass under way.
  Stage stage_ = Stage::kFront;
  int64_t last_revision_ = 0;
  size_t next_lease_ = 0;
  bbolt::Writer measure_;
  std::optional<bbolt::Layout> layout_;
  std::optional<bbolt::Writer> write_;
};

}  // namespace conclave::backup
