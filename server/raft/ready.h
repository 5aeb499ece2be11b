// All that Raft wants done, in one struct: the output of RawNode::TakeReady.
//
// The order of work is free except for two rules: an AppendRequest's messages leave after its
// entries and hard state are durable, and AppendRequests become durable in the order they were
// given.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "conclave/server/raft/message.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

enum class Role : uint8_t { kFollower = 0, kPreCandidate = 1, kCandidate = 2, kLeader = 3 };

// What need not survive a crash.
struct SoftState {
  Role role = Role::kFollower;
  NodeId leader;  // 0: not known
  friend bool operator==(const SoftState&, const SoftState&) = default;
};

// One write to the local log. When it is durable: send `messages`, then Step(StorageAppended{id});
// one StorageAppended may stand for several requests. All of it is to be durable, also a hard state
// alone; a request that carries nothing but messages only waits for those before it.
struct AppendRequest {
  AppendId id;
  std::optional<HardState> hard_state;
  // In order without gaps. A first entry at or below the last one written replaces the log's tail
  // from there on.
  //
  // After InstallSnapshot the first entry stands at the snapshot's own index, with its term and
  // without a payload, below or beyond what was written: the log starts anew there, and whatever
  // stood in it is void. If a crash comes before that is durable, the log that is read back has
  // another term at the snapshot's index, or does not reach it; then it is to be voided durably
  // before RawNode starts.
  std::vector<Entry> entries;
  std::vector<Envelope> messages;
};

// The read may be served as soon as the state machine has applied `index`.
struct ReadState {
  ReadId id;
  Index index;
  friend bool operator==(const ReadState&, const ReadState&) = default;
};

// A forwarded batch that the leader has refused: certainly not in the log.
struct DroppedProposals {
  ProposalId id;
  ProposeStatus reason = ProposeStatus::kNotLeader;
  friend bool operator==(const DroppedProposals&, const DroppedProposals&) = default;
};

struct Ready {
  std::optional<SoftState> soft_state;  // set when it has changed
  std::optional<AppendRequest> append;
  std::vector<Envelope> messages;  // may leave at once
  // To be applied, in order, each exactly once. See RawNode for the rule which entries appear.
  std::vector<Entry> committed;
  std::vector<ReadState> reads;
  // The leader they were asked of is gone: to be answered "leader changed", or asked again.
  std::vector<ReadId> failed_reads;
  // Peers whose next entry is compacted away: stream them the state, then SnapshotStatus. Each is
  // named once per attempt.
  std::vector<NodeId> snapshots_needed;
  std::vector<DroppedProposals> dropped_proposals;
};

}  // namespace conclave::raft
