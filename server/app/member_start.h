// How a server starts: which member it is, and whether it founds a cluster, joins one or goes on.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/tls/policy.h"

namespace conclave::app {

struct MemberStart {
  raft::NodeId id;
  uint64_t cluster_id = 0;
  std::optional<node::InitialCluster> founders;           // if it may found the cluster
  std::optional<std::vector<node::PeerAddress>> joining;  // if it joins one
};

// Reads what the disk says of its owner: a member that has its state is who it was, and
// --initial-cluster, --initial-cluster-state and --initial-cluster-token are not looked at. Asks
// the other members of --initial-cluster at their peer ports, if this one has no state yet: a
// member that joins learns its ids from them; and no server begins anew, with an empty disk, as a
// member that has been there before, for it would vote a second time. Blocks meanwhile. `peer_tls`
// for peer URLs that want TLS; may be null.
//   InvalidArgument     --initial-cluster is needed, and is none (CheckInitialCluster)
//   Unavailable         none of the others answers a member that joins
//   FailedPrecondition  they do not know it, know it too well, or are too new
[[nodiscard]] absl::StatusOr<MemberStart> DecideStart(env::Disk& disk, const Config& config,
                                                      tls::Policy* peer_tls);

// The other members, as they say themselves, for a member whose state is lost. Empty: there are
// none. Blocks, half a minute at most.
[[nodiscard]] absl::StatusOr<std::vector<node::PeerAddress>> AskOthers(const Config& config,
                                                                       tls::Policy* peer_tls,
                                                                       raft::NodeId self);

}  // namespace conclave::app
