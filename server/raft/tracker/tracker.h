// ProgressTracker: the leader's view of all members, and what their quorum has acknowledged.
#pragma once

#include <map>

#include "conclave/server/raft/quorum/joint.h"
#include "conclave/server/raft/tracker/progress.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// Iteration is in the order of ids. Invariant: every voter and learner of the configuration has a
// Progress; others have one only while they depart.
class ProgressTracker {
 public:
  struct Limits {
    uint32_t max_inflight_messages = 0;
    uint64_t max_inflight_bytes = 0;
    uint32_t departure_ticks = 0;
  };

  // `self` has a Progress like the others, for its own log.
  ProgressTracker(NodeId self, Limits limits) : self_(self), limits_(limits) {}

  // The configuration is `conf`, as of the entry at `entry`. New members start in state Probe at
  // `next`.
  void SetConf(const ConfState& conf, Index entry, Index next);

  Progress* Find(NodeId id);
  const Progress* Find(NodeId id) const;
  std::map<NodeId, Progress>& all() { return all_; }
  const std::map<NodeId, Progress>& all() const { return all_; }
  const JointConfig& quorum() const { return quorum_; }

  // The largest index that is durable on a quorum.
  Index CommittedIndex() const;
  // The newest read round that a quorum has acknowledged. The leader acknowledges its own newest
  // one.
  ReadRound AcknowledgedRound(ReadRound newest) const;
  // True if a quorum was heard of since the last call; the leader hears itself.
  bool TakeQuorumActive();
  // A departed member is forgotten when it has been told, or has had its time. Once per tick.
  void TickDepartures();
  void DropDeparted();

 private:
  NodeId self_;
  Limits limits_;
  JointConfig quorum_;
  std::map<NodeId, Progress> all_;
};

}  // namespace conclave::raft
