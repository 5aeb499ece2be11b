// SimMember: a whole server process in the simulator: the production Node, log, snapshot files and
// recovery, on a simulated disk, driven by the simulated clock.
//
// The log "thread" works as the real one does: it takes everything that is queued, appends it,
// syncs after the disk's latency, and reports once. A crash in between leaves on the disk what
// MemoryDisk decides.
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
#include "conclave/server/wal/log.h"
#include "conclave/tests/sim/history.h"
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
  };

  // Who the others are, for a member that joins: asked when it starts without a state.
  using Others = std::function<std::vector<node::PeerAddress>()>;

  // A founder of `cluster`; null: it joins.
  SimMember(Schedule* schedule, Prng* prng, node::Options options,
            const node::InitialCluster* cluster, Others others, Callbacks callbacks);
  ~SimMember();

  // Recovers from the disk and runs. An error is a failure of the run.
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
  env::MemoryDisk& disk() { return disk_; }
  void set_latency(const DiskLatency& latency) { latency_ = latency; }
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
  void StartWrite();
  void EndWrite();
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
  std::unique_ptr<wal::Log> log_;
  std::unique_ptr<snapshot::Saver> saver_;
  std::vector<node::Input> inbox_;
  node::Effects effects_;
  Instant planned_ = kNever;  // the next turn
  bool paused_ = false;
  bool stopping_ = false;
  uint32_t idle_turns_ = 0;  // in a row
  std::pair<raft::Term, raft::NodeId> last_vote_;

  std::deque<node::SnapshotPiece> pieces_;  // for the writer of snapshots
  std::deque<node::LogAppend> log_queue_;
  bool writing_ = false;
  uint64_t written_batch_ = 0;
  std::optional<raft::Index> truncate_;
};

}  // namespace conclave::sim
