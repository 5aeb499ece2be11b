// SimMember: a whole server process in the simulator: the production Node, log, snapshot files and
// recovery, on a simulated disk, driven by the simulated clock.
//
// What a crash leaves on the disk is what MemoryDisk decides. The disk may also fail, as a real one
// does: with errors, or by being full; then the process ends, or goes on without writes.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/node.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/tests/sim/history.h"
#include "conclave/tests/sim/log_writer.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {

struct DiskLatency {
  Duration sync_min = std::chrono::microseconds(100);
  Duration sync_max = std::chrono::microseconds(800);
};

class SimMember {
 public:
  struct Callbacks {
    std::function<void(node::Effects& effects)> effects;  // replies, streams, peer sends
    std::function<void()> turned;                       // after a turn: the state may be looked at
    std::function<void()> stopped;                      // the node has said so
    std::function<void(raft::NodeId candidate)> votes;  // it gives its disk a vote to write
    // It gives its disk a renewal that it acknowledges once that is committed; before `effects`.
    std::function<void()> renews;
    // It gives its disk the end of a snapshot to write; of one that it was sent, or of its own.
    std::function<void(bool received)> saves;
    // The disk has failed, and the process ends.
    std::function<void(const absl::Status& status)> disk_failed;
  };

  // Who the others are, for a member that joins, or has lost its state.
  using Others = std::function<std::vector<node::PeerAddress>()>;

  // A founder of `cluster`; null: it joins.
  SimMember(Schedule* schedule, Prng* prng, node::Options options,
            const node::InitialCluster* cluster, Others others, Callbacks callbacks);
  ~SimMember();

  // Recovers from the disk and runs. An error that the disk does not excuse is a failure of the
  // run.
  [[nodiscard]] absl::Status Start();
  enum class Crash { kPower, kLazyPower, kProcess };
  void Stop(Crash crash);

  bool up() const { return node_ != nullptr; }
  bool paused() const { return paused_; }
  // The process stands still: inputs wait, the clock goes on.
  void Pause() { paused_ = true; }
  void Resume();

  void Put(node::Input input);

  node::Node& node() { return *node_; }
  const apply::StateMachine& state() const { return node_->state(); }
  const node::Options& options() const { return options_; }
  // Counts starts: what was meant for an earlier life is void.
  uint64_t life() const { return life_; }
  // It was told to stop, and has not done so yet.
  bool stopping() const { return stopping_; }
  // Its log was damaged, and it votes as if it had all of it until others have filled it up.
  bool awaits_repair() const { return node_->raft_status().awaits_repair; }
  // What recovery told when it started.
  const std::vector<std::string>& notes() const { return notes_; }
  env::MemoryDisk& disk() { return disk_; }
  const env::MemoryDisk& disk() const { return disk_; }
  void set_latency(const DiskLatency& latency) { latency_ = latency; }

  // After so many operations the disk gives errors: one, or from then on nothing else.
  void FailDisk(uint64_t after_operations, bool for_good);
  // There is room for so many more bytes.
  void FillDisk(uint64_t room_bytes);
  void MakeRoom();
  void RepairDisk();
  bool disk_is_full() const { return disk_is_full_; }
  // It has given an error in this life, or in an attempt to start one.
  bool disk_has_failed() const { return disk_has_failed_; }

  // Its turns come that much later, as on a machine that has other things to do.
  void set_turn_delay(Duration delay) { turn_delay_ = delay; }
  // From now on its clock is so much too fast.
  void set_drift_ppm(int64_t drift_ppm);

 private:
  // Its own clock, and when that will show `local`.
  Instant LocalNow() const;
  Instant WorldTime(Instant local) const;
  void PlanTurn(Instant at);
  void Turn();
  raft::NodeId VoteIn(const node::Effects& effects);
  bool HasRenewal(const node::Effects& effects) const;
  absl::Status OnDisk(env::MemoryDisk::Operation operation);
  void StartLog(std::unique_ptr<wal::Log> log);
  void RunPasswordJob(const auth::PasswordJob& job);
  void TakePiece(node::SnapshotPiece piece);
  void SavePieceLater();
  void SavePiece();
  Duration SyncTime();

  Schedule* const schedule_;
  Prng* const prng_;
  node::Options options_;
  const node::InitialCluster* const cluster_;
  const Others others_;
  const Callbacks callbacks_;
  env::MemoryDisk disk_;
  DiskLatency latency_;
  Duration turn_delay_{};
  int64_t drift_ppm_ = 0;
  Instant world_zero_{};  // since when it drifts like that,
  Instant local_zero_{};  // and what its clock showed then

  uint64_t life_ = 0;
  std::unique_ptr<node::Node> node_;
  std::unique_ptr<LogWriter> log_writer_;
  std::unique_ptr<snapshot::Saver> saver_;
  std::vector<node::Input> inbox_;
  node::Effects effects_;
  Instant planned_ = kNever;  // the next turn
  bool paused_ = false;
  bool stopping_ = false;
  uint32_t idle_turns_ = 0;  // in a row
  std::pair<raft::Term, raft::NodeId> last_vote_;

  std::vector<std::string> notes_;
  std::deque<node::SnapshotPiece> pieces_;  // for the writer of snapshots
  std::optional<uint64_t> operations_until_error_;
  bool fails_for_good_ = false;
  bool disk_has_failed_ = false;  // in this life
  bool disk_is_full_ = false;
};

}  // namespace conclave::sim
