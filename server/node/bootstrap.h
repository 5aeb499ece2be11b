// How a member comes to be: of the flags that found a cluster, or of what its disk remembers.
//
//   first start   ids derived from the flags as etcd does; the founding state is written as a
//   snapshot, then
//                 the log is created. So the founding members are remembered, whatever later flags
//                 say.
//   join          an empty state, likewise; who the others are was asked of them, and everything
//                 else comes by Raft. Until it has come, every start asks them again
//   any other     the newest readable snapshot, and the log behind it
//   forced        all that the log holds is applied, whoever has it beside this member; then this
//                 one is the only member of its cluster
//
// A crash anywhere in the first start is a first start again: the log is created behind the
// snapshot, and behind the log the member's identity (identity.h). A directory with an identity, or
// with a later snapshot, but without a log is never founded anew.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/node/node.h"
#include "conclave/server/wal/log.h"

namespace conclave::apply {
struct StateParts;
}

namespace conclave::node {

// One of the members that found a cluster: `--initial-cluster name=url,name=url,other=url`.
struct FoundingMember {
  std::string name;
  std::vector<std::string> peer_urls;

  friend bool operator==(const FoundingMember&, const FoundingMember&) = default;
};

// The founders with their ids, which every one of them derives alike.
struct InitialCluster {
  struct Member {
    raft::NodeId id;
    std::string name;
    std::vector<std::string> peer_urls;  // sorted
  };
  uint64_t cluster_id = 0;
  std::vector<Member> members;  // by id

  const Member* Find(std::string_view name) const;
};

// The first 8 bytes, big-endian, of SHA-1(sorted peer URLs, one behind the other, and the token).
[[nodiscard]] raft::NodeId MemberId(std::vector<std::string> peer_urls, std::string_view token);

// InvalidArgument: no members, a member without URLs, two of the same name or with the same URL.
[[nodiscard]] absl::StatusOr<InitialCluster> FoundCluster(std::span<const FoundingMember> founders,
                                                          std::string_view token);

// The state of a cluster before its first entry, on every founder.
[[nodiscard]] Recovered FoundingState(const Options& options, const InitialCluster& cluster);
// The same of a cluster that begins with what another one left behind (a snapshot of it):
// everything in `parts` but the cluster and the place in the log, which are filled in.
[[nodiscard]] absl::StatusOr<Recovered> FoundingState(const Options& options,
                                                      const InitialCluster& cluster,
                                                      apply::StateParts parts);

// The state of a server that joins a cluster: none, at index 0. `others` are the members as the
// cluster tells them; the rest comes by Raft.
[[nodiscard]] Recovered JoiningState(const Options& options, std::vector<PeerAddress> others);

struct Opened {
  Recovered recovered;            // for the Node
  std::unique_ptr<wal::Log> log;  // for the one who writes it
  bool first_start = false;
  std::vector<std::string> notes;  // for the operator: what was repaired or skipped
};

// Asks the other members who they are.
using AskOthers = std::function<absl::StatusOr<std::vector<PeerAddress>>()>;

struct OpenOptions {
  uint64_t segment_bytes = wal::kSegmentBytesDefault;
  // Of a member that joins, or has not come further than that: the others.
  std::optional<std::vector<PeerAddress>> joining{};
  bool force_new_cluster = false;
  // For a member that finds that it has lost all of its state. Null: then it is refused.
  AskOthers ask_others{};
};

// True if OpenMember needs `founding` or `joining`: there is no log, or no state beside an empty
// one.
[[nodiscard]] absl::StatusOr<bool> KnowsNoCluster(env::Disk& disk);

// FailedPrecondition, if OpenMember would refuse the disk as another cluster's, member's, program's
// or a newer format's. Writes nothing, and does not need the lock: to be asked before one is taken.
[[nodiscard]] absl::Status CheckOwner(env::Disk& disk, const Options& options);

// Opens a member's disk, which the caller has locked and which must outlive the log. options.id and
// options.cluster_id say whose it must be. `founding` or `joining` is needed at the first start
// only (neither: NotFound then).
//   FailedPrecondition  the directory belongs to another cluster, member or program; or a new
//                       cluster cannot be forced out of it
//   DataLoss            what was acknowledged is damaged or missing, and nobody else has it (there
//                       are no other voters), or the votes are lost as well
// What others have is not missed: a damaged log is cut where it is damaged, unreadable snapshots
// are set aside, and Recovered::lost_index says that the member waits for repair.
//
// Nothing is written into a directory that is refused.
[[nodiscard]] absl::StatusOr<Opened> OpenMember(env::Disk& disk, const Options& options,
                                                const InitialCluster* founding,
                                                const OpenOptions& open = {});

// Makes the disk of a founder whose cluster begins with `parts`, so that OpenMember finds a member
// there. FailedPrecondition if there is one already.
[[nodiscard]] absl::Status FoundMember(env::Disk& disk, const Options& options,
                                       const InitialCluster& cluster, apply::StateParts parts,
                                       const OpenOptions& open = {});

}  // namespace conclave::node
