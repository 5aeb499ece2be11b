// The vocabulary of Raft: what stands in the log, on disk and in messages. Plain structs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/base/strong.h"

namespace conclave::raft {

using Term = Strong<struct TermTag>;      // 0: before the first election
using Index = Strong<struct IndexTag>;    // of a log entry; the first is 1, 0 is "none"
using NodeId = Strong<struct NodeIdTag>;  // a member; 0 is "nobody"
using ReadId = Strong<struct ReadIdTag>;  // of one ReadIndex call; its caller chooses it
// A round of "do you still follow me" that answers all reads which wait when it opens. Grows within
// one leadership (leader to followers) or one process (follower to leader), and is never used
// twice.
using ReadRound = Strong<struct ReadRoundTag>;
using AppendId = Strong<struct AppendIdTag>;      // of a write to the local log; counts up from 1
using ProposalId = Strong<struct ProposalIdTag>;  // of a batch of proposals handed to the leader

enum class EntryType : uint8_t {
  kCommand = 0,     // payload is the state machine's; empty payload: the first entry of a leader
  kConfChange = 1,  // payload is an encoded confchange, effective at append
};

struct Entry {
  Term term;
  Index index;
  EntryType type = EntryType::kCommand;
  Bytes payload;

  friend bool operator==(const Entry&, const Entry&) = default;
};

// What must survive a crash beside the entries.
struct HardState {
  Term term;
  NodeId vote;
  Index commit;

  friend bool operator==(const HardState&, const HardState&) = default;
};

// Who votes and who listens. voters_outgoing is non-empty only in a joint configuration.
// All lists are sorted.
struct ConfState {
  std::vector<NodeId> voters;
  std::vector<NodeId> voters_outgoing;
  std::vector<NodeId> learners;
  std::vector<NodeId> learners_next;
  bool auto_leave = false;

  friend bool operator==(const ConfState&, const ConfState&) = default;
};

// Where in the log a snapshot of the state machine stands.
struct SnapshotMeta {
  Index index;
  Term term;
  ConfState conf;

  friend bool operator==(const SnapshotMeta&, const SnapshotMeta&) = default;
};

// The state that every founding member of a cluster starts from: the empty state machine stands at
// index 1 of term 1, with `voters` as its members. It is not 0 on purpose: a member that joins
// later has an empty log (index 0), which no leader's log reaches back to, so it always starts by a
// snapshot and learns the founding membership from it.
inline SnapshotMeta FoundingSnapshot(std::vector<NodeId> voters) {
  std::sort(voters.begin(), voters.end());
  SnapshotMeta founding;
  founding.index = Index(1);
  founding.term = Term(1);
  founding.conf.voters = std::move(voters);
  return founding;
}

}  // namespace conclave::raft
