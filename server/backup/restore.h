// A file of etcd's (of etcd itself, or of our own Snapshot) as a state to found a cluster on.
//
// Keys with their history, leases, alarms, users and roles are taken over; members, cluster version
// and the place in the log are the new cluster's own. What a compaction had begun is finished.
//
// The file may come from anywhere: whatever it is, it ends in a state or a Status.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/bbolt/reader.h"

namespace conclave::backup {

struct RestoreOptions {
  // Added to the revision, so that no revision that a client of the lost cluster may have seen
  // comes again with other content.
  uint64_t bump_revision = 0;
  // Everything up to the (raised) revision counts as compacted: watchers that come back with an old
  // revision are told so, instead of waiting for what they will not hear.
  bool mark_compacted = false;
};

// Without cluster, members and place in the log, which the caller fills in. DataLoss: the file is
// damaged or contradicts itself. InvalidArgument: the revision cannot be raised by so much.
[[nodiscard]] absl::StatusOr<apply::StateParts> ReadState(bbolt::Database* database,
                                                          const RestoreOptions& options);

// What `snapshot status` tells, as etcd's tools compute it.
struct DatabaseStatus {
  uint32_t hash = 0;
  int64_t revision = 0;    // of the last record
  int64_t total_keys = 0;  // pairs of all buckets
  uint64_t total_bytes = 0;
  std::string version;  // of the storage; empty before 3.6
};
[[nodiscard]] absl::StatusOr<DatabaseStatus> Inspect(bbolt::Database* database);

}  // namespace conclave::backup
