// What a member keeps only while it plays a role. RawNode holds one of these in a variant, so a
// follower has no stale Progress, and a leader's reads end with its leadership.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "conclave/server/raft/reads.h"
#include "conclave/server/raft/tracker/tracker.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

struct Follower {
  NodeId leader;  // 0: not known
  FollowerReads reads;
};

struct Candidate {
  bool pre_vote = false;             // asks whether it would win, in its old term
  bool leadership_transfer = false;  // the leader wants it so
  std::vector<std::pair<NodeId, bool>> votes;

  std::optional<bool> VoteOf(NodeId id) const {
    for (const auto& [voter, granted] : votes) {
      if (voter == id) return granted;
    }
    return std::nullopt;
  }
};

// Which forwarded batches of one member have come in this term, so that none counts twice, however
// often and late the network delivers it. Ids grow within one life of the member's process, and a
// life starts anywhere (Config::seed), so an id far from all that were seen is of a new life.
class ForwardsSeen {
 public:
  // True if `id` is above all of its life that came before.
  [[nodiscard]] bool Add(ProposalId id);

 private:
  static constexpr uint64_t kOneLife = uint64_t{1} << 40;
  static constexpr size_t kMaxLives = 4096;  // restarts within one term; beyond, nothing is taken

  std::vector<ProposalId> newest_of_life_;
};

struct Leader {
  ProgressTracker tracker;
  LeaderReads reads;
  // Kept also for members that go: they may come back, and old messages of theirs after them.
  std::map<NodeId, ForwardsSeen> forwards_seen;
  Index first_own;  // the empty entry that opens this leader's term
  NodeId transferee;
  uint32_t transfer_elapsed = 0;   // ticks
  uint32_t heartbeat_elapsed = 0;  // ticks
  uint64_t uncommitted_bytes = 0;  // payloads that Ready::committed has not given yet
  bool replicate = true;           // something has changed that peers may have to hear of
  bool heartbeat_due = false;
  bool abdicate = false;  // its own removal is committed
};

}  // namespace conclave::raft
