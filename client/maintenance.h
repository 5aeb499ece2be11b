// Maintenance and Cluster: what operators ask of a cluster.
//
//   conclave::Maintenance maintenance(client);
//   absl::StatusOr<conclave::SnapshotSaved> saved =
//       maintenance.SaveSnapshot("127.0.0.1:2379", "backup.db");
//
// Both are handles on a Client; thread-safe, blocking, as that is. Names of endpoints are those of
// Client::endpoints(): what concerns one member is asked of that one, and not retried on another.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"

namespace conclave {

struct SaveSnapshotOptions {
  // Fails with DeadlineExceeded when nothing has come for so long. The call's own timeout holds for
  // all of it, and is without end by default.
  absl::Duration stall_timeout = absl::Seconds(30);
};

struct SnapshotSaved {
  uint64_t bytes = 0;     // of the file
  std::string version{};  // of the storage; empty before etcd 3.6
};

struct HashKvOptions {
  int64_t revision = 0;  // 0: the current one
};

class Maintenance {
 public:
  explicit Maintenance(Client client) : client_(std::move(client)) {}

  absl::StatusOr<MemberStatus> Status(std::string_view endpoint,
                                      const CallOptions& call = {}) const {
    return client_.Status(endpoint, call);
  }

  absl::StatusOr<std::vector<Alarm>> Alarms(const CallOptions& call = {}) const;
  // Gives the alarms that were ended: none if there was no such.
  absl::StatusOr<std::vector<Alarm>> Disarm(const Alarm& alarm, const CallOptions& call = {}) const;
  // All of them.
  absl::StatusOr<std::vector<Alarm>> DisarmAll(const CallOptions& call = {}) const;

  // Gives what was freed back to the disk. An etcd serves nothing meanwhile; a Conclave server has
  // nothing to do and answers at once.
  absl::Status Defragment(std::string_view endpoint, const CallOptions& call = {}) const;

  // A hash over all keys and their history: members that agree have the same at the same revision.
  absl::StatusOr<HashKvResult> HashKv(std::string_view endpoint, const HashKvOptions& options = {},
                                      const CallOptions& call = {}) const;

  // Hands the leadership over to a member; asks the leader, who must be among the endpoints
  // (Unavailable if it is not, or there is none).
  absl::Status MoveLeader(uint64_t member_id, const CallOptions& call = {}) const;

  // "3.5.0". Gives the version of the cluster at that time.
  absl::StatusOr<std::string> Downgrade(DowngradeAction action, std::string_view version,
                                        const CallOptions& call = {}) const;

  // Saves what one member has, as a file that `conclave snapshot restore` and etcd's tools take.
  // The file is written under another name ("<path>.part"), compared with the hash that the server
  // sends behind it (DataLoss if it differs), made durable, and then gets its name, which replaces
  // a file that had it.
  absl::StatusOr<SnapshotSaved> SaveSnapshot(std::string_view endpoint, const std::string& path,
                                             const SaveSnapshotOptions& options = {},
                                             const CallOptions& call = {}) const;

 private:
  Client client_;
};

struct MemberListOptions {
  bool linearizable = true;  // false: as the member that answers knows them
};

struct MemberAddOptions {
  bool learner = false;  // gets all data, and has no vote until it is promoted
};

class Cluster {
 public:
  explicit Cluster(Client client) : client_(std::move(client)) {}

  absl::StatusOr<std::vector<Member>> MemberList(const MemberListOptions& options = {},
                                                 const CallOptions& call = {}) const;
  // Before the member is started. InvalidArgument, FailedPrecondition as the server says.
  absl::StatusOr<MemberAdded> MemberAdd(const std::vector<std::string>& peer_urls,
                                        const MemberAddOptions& options = {},
                                        const CallOptions& call = {}) const;
  // These give the members there are then. NotFound: there is no such member.
  absl::StatusOr<std::vector<Member>> MemberRemove(uint64_t id, const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<Member>> MemberUpdate(uint64_t id,
                                                   const std::vector<std::string>& peer_urls,
                                                   const CallOptions& call = {}) const;
  // A learner becomes a voter, once it has caught up.
  absl::StatusOr<std::vector<Member>> MemberPromote(uint64_t id,
                                                    const CallOptions& call = {}) const;

 private:
  Client client_;
};

}  // namespace conclave
