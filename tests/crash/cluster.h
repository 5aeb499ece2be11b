// Cluster: whole members, each with the production node, log, snapshot files and recovery on a disk
// of its own, joined by a network that delivers at once and in order. Any of them may lose its
// power at any change of its disk, and start again.
//
// As in a server, the log is written beside the node: what a turn sends is under way before what it
// appends is durable, and everything that has come meanwhile is written together. After each write
// the spare and the reserve of the log are seen to.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/node.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/server/wal/log.h"
#include "conclave/tests/crash/plug.h"

namespace conclave::crash {

// Connected for so long, a member counts as healthy.
inline constexpr std::chrono::milliseconds kHealthInterval{100};

struct ClusterOptions {
  size_t voters = 3;
  bool learner = false;           // and one learner, the last member
  uint64_t snapshot_entries = 0;  // as node::Options
  uint64_t catch_up_entries = 0;
  uint64_t seed = 1;
};

class Cluster {
 public:
  // With a leader, and all members ready.
  explicit Cluster(const ClusterOptions& options);
  ~Cluster();

  size_t size() const { return members_.size(); }
  bool has_leader() const;
  size_t leader() const;
  size_t follower() const;
  // A member that runs and is not `other`, if there is one; the leader, if it can be.
  std::optional<size_t> AnyBut(size_t other) const;
  bool running(size_t member) const;
  uint64_t id(size_t member) const;
  const node::Node& node(size_t member) const;

  // How many snapshots of others it has begun its log anew behind.
  size_t installed(size_t member) const;

  // The plug of this member's disk, from now on; until it is pulled, or Unplug.
  void ArmPlug(size_t member, Mode mode, uint64_t at, uint64_t seed);
  // What the plug was pulled at; empty: it was not. The disk works again.
  std::string Unplug(size_t member);
  // A member that runs is off, and has nothing that was not synced.
  void LosePower(size_t member);
  // OK: it runs again. It may die once more, if its plug is armed.
  absl::Status Start(size_t member);
  // To another voter, if there is one; somebody leads afterwards.
  void MoveLeader();
  void Isolate(size_t member);
  void Rejoin(size_t member);

  // The answer; nothing if the member died before, or none came within ten seconds.
  std::optional<node::Reply> Call(size_t member, node::Method method, const std::string& encoded);
  // Until `condition`, for up to half a minute of the cluster's time.
  template <typename Condition>
  bool Await(Condition&& condition) {
    Settle();
    for (int i = 0; i < kAwaitSteps && !condition(); ++i) Advance();
    return condition();
  }
  void Pass(Duration duration);
  // All of them run, know a leader, and have applied the same.
  bool AwaitCalm();

 private:
  static constexpr int kAwaitSteps = 3000;
  struct Member;

  void AddMember(const std::string& name, raft::NodeId id, bool joins);
  void AddLearner();
  std::optional<size_t> NumberOf(raft::NodeId id) const;
  void Connect(size_t member, size_t peer, bool connected);
  // Until nothing is left to do at this time; then a moment passes.
  void Settle();
  void Advance();
  // Each does some of what is due, and says whether there was anything.
  bool Turn(size_t which);
  bool WriteLog(size_t which);
  bool WriteSnapshot(size_t which);
  bool SeeToLog(size_t which);
  void LeaveProof(size_t which);
  void CarryOut(size_t which, node::Effects& effects);
  // True, and it is thrown away, if its machine has gone off.
  bool Died(size_t which, const absl::Status& status);
  void End(size_t which);

  const ClusterOptions options_;
  node::InitialCluster founders_;
  Prng prng_;
  Instant now_{};
  std::vector<std::unique_ptr<Member>> members_;
  std::set<size_t> isolated_;
  std::map<uint64_t, node::Reply> replies_;
  uint64_t last_call_ = 0;
};

}  // namespace conclave::crash
