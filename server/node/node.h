// Node: one member of the cluster, all of its logic, as a function of its inputs.
//
//   Turn(now, inputs, effects) takes everything that has arrived since the last turn, and says what
//   is to be done about it: replies, one log append, one frame per peer and lane, log lines.
//   Whoever drives it (the core thread of the server, the simulator) carries the effects out and
//   comes back with their answers as inputs.
//
// It owns the Raft core, the state machine (store, leases, members), the watchers and the sessions
// of clients, and joins them; what each of them does stands in its own folder. How the pieces of
// this folder share the work: docs/architecture.md.
//
// A node of the same options, recovered state and inputs at the same times gives the same effects.
// No thread, no system clock, no random device, no order of addresses in here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/raft/types.h"

namespace conclave::apply {
class RestoreTask;
class StateMachine;
}  // namespace conclave::apply
namespace conclave::auth {
class TokenVerifier;
}

namespace conclave::node {

// What a member is, and its limits. Every limit that a client can run into answers with etcd's own
// error.
struct Options {
  raft::NodeId id;
  uint64_t cluster_id = 0;
  std::string name;                      // published to the cluster through the log
  std::vector<std::string> client_urls;  // likewise
  std::string version;                   // of this program, as Status tells it

  Duration heartbeat_interval = std::chrono::milliseconds(100);
  Duration election_timeout = std::chrono::milliseconds(1000);
  // Of elections' jitter, lease ids and watch progress jitter. Different on every member and every
  // start.
  uint64_t seed = 0;

  // 0: etcd's 2 GiB; below 0: no quota.
  int64_t quota_bytes = 0;
  uint64_t request_bytes_max = 1536 * 1024;  // of one encoded request
  uint64_t txn_ops_max = 128;                // of each list of a transaction
  uint64_t pending_proposals_max = 50'000;   // waiting for their entries, on this member
  uint64_t pending_proposal_bytes_max = 256u << 20;
  uint64_t commit_apply_gap_max = 5'000;  // etcd's `too many requests`
  uint64_t pending_reads_max = 200'000;   // linearizable reads waiting for their round
  uint64_t streams_max = 100'000;         // of all kinds
  uint64_t watchers_per_stream_max = 1'000'000;
  uint64_t stream_unsent_bytes_max =
      4u << 20;  // a stream that is further behind waits for its StreamSent

  // A snapshot is taken when the log has grown by max(this, the last snapshot's size).
  uint64_t snapshot_log_bytes_min = 64u << 20;
  uint64_t snapshot_entries = 0;  // or by so many entries; 0: by bytes alone
  // The pace at which it is handed to the disk, or to a follower.
  uint64_t snapshot_bytes_per_second = 64u << 20;
  // Entries that stay in memory for followers that lag. One further behind gets a snapshot.
  uint64_t log_window_bytes = 32u << 20;
  uint64_t catch_up_entries = 0;  // or no more than about so many, once a snapshot covers them
  uint64_t snapshot_chunk_bytes = 256u << 10;  // of a snapshot on its way to a follower
  uint64_t snapshot_chunks_in_flight_max = 8;
  // Entries in one message to a follower; a single one may be larger.
  uint64_t append_bytes_max = 1 << 20;

  // Authentication. Tokens are signed ones (JWT) if there is a verifier, else simple ones.
  std::shared_ptr<const auth::TokenVerifier> token_verifier;
  Duration auth_token_ttl = std::chrono::seconds(300);  // of simple tokens, from their last use
  int bcrypt_cost = auth::kBcryptCostDefault;
  // Changes of membership. Strict: only what the members that have started can carry.
  bool strict_reconfig_check = true;
  uint64_t learners_max = 1;
  Duration health_interval = std::chrono::seconds(5);  // connected for so long: healthy

  Duration watch_progress_interval = std::chrono::minutes(10);
  int64_t watch_batch_revisions_max = 1000;  // in one response to a watch that catches up
  // A change of leader prolongs a lease by no more than about this (or a twentieth of its TTL).
  Duration lease_checkpoint_lag = std::chrono::milliseconds(500);
  Duration slow_request = std::chrono::milliseconds(300);
  // A leader whose syncs go on taking so long hands over to a member whose disk is better; 0: half
  // an election timeout.
  Duration slow_sync{};
  Duration divergence_check_interval = std::chrono::seconds(1);
  // How often the leader logs that these checks went on, as etcd's check of compacted revisions and
  // its check of whole states do; 0: never.
  Duration divergence_report_interval{};
  Duration corruption_report_interval{};

  // How long after the last time the records in memory are all looked at again; below 0: never.
  Duration memory_check_interval = std::chrono::minutes(10);
  // The same of the files on the disk.
  Duration file_check_interval = std::chrono::hours(6);

  // Compaction frees so many records a turn, and rests between two such slices.
  uint64_t compaction_slice_records = 2000;  // some 0.5 ms
  Duration compaction_rest{};
  // A member that starts waits for a leader no longer than the random part of its election timeout.
  bool initial_election_advance = false;
};

// What a member starts from; node/bootstrap.h makes it, of the flags or of the disk.
struct Recovered {
  Recovered();
  Recovered(Recovered&&) noexcept;
  Recovered& operator=(Recovered&&) noexcept;
  ~Recovered();

  std::unique_ptr<apply::StateMachine> state;  // as of `snapshot`
  raft::SnapshotMeta snapshot;                 // its index, term and configuration
  uint64_t snapshot_bytes = 0;
  raft::HardState hard_state;
  std::vector<raft::Entry> entries;  // of the log, behind the snapshot, without a gap
  // Where the log ended before a part of it was lost to the disk; index 0: nothing was.
  raft::Index lost_index;
  raft::Term lost_term;
  // What the disk has of a snapshot that was being received; null: nothing.
  std::unique_ptr<apply::RestoreTask> unfinished;
  // Where others are said to be, for a member that joins: its state is empty (index 0).
  std::vector<PeerAddress> acquaintances;
};

struct RaftStatus {
  raft::Term term;
  raft::NodeId leader;  // 0: none known
  raft::Index commit;
  raft::Index applied;
  raft::Index conf_entry;  // the newest change of membership in the log, committed or not
  raft::Index first_own;   // a leader's: the entry that opens its term
  bool is_leader = false;
  bool is_learner = false;
  bool awaits_repair = false;  // its log was damaged, and no leader has filled it again yet
};

class Node {
 public:
  // `now` starts all timers.
  Node(Options options, Recovered recovered, Instant now);
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node();

  // Takes the inputs (they are left moved-from) and appends to *effects, which the caller has
  // cleared. `now` never goes back. An empty span is a turn for the sake of NextDeadline alone.
  void Turn(Instant now, std::span<Input> inputs, Effects* effects);

  // When Turn wants to be called again though nothing has arrived. At or before the last `now`: at
  // once (work is left over that was cut into slices).
  [[nodiscard]] Instant NextDeadline() const;

  // For tests and checkers.
  [[nodiscard]] RaftStatus raft_status() const;
  [[nodiscard]] const apply::StateMachine& state() const;
  // The configuration as of what is applied.
  [[nodiscard]] const raft::ConfState& conf() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::node
