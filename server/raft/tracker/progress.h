// Progress: what a leader knows about one follower's log, and how it sends to it.
//
//            +-- accepted --> Replicate --+-- rejected, unreachable --+
//            |                            |                           |
//   +---> Probe <-------------------------+---------------------------+
//   |        |                            |
//   |        +--- the next entry is compacted away ---> Snapshot
//   |                                                      |
//   +------------ the stream has ended --------------------+
//
// Probe: one append at a time, to find where the logs part; the next one after an answer or a
// heartbeat's answer. Replicate: appends follow each other without waiting for answers, `next` runs
// ahead of `match`, bounded by `inflights`. Snapshot: no appends, the node streams state.
#pragma once

#include <cstdint>
#include <optional>

#include "conclave/server/raft/tracker/inflights.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

enum class PeerState : uint8_t { kProbe = 0, kReplicate = 1, kSnapshot = 2 };

// Invariant: match < next. (In the states Probe and Snapshot nothing is in flight.)
class Progress {
 public:
  Progress(Index next, uint32_t max_inflight_messages, uint64_t max_inflight_bytes)
      : next_(next), inflights_(max_inflight_messages, max_inflight_bytes) {}

  PeerState state() const { return state_; }
  Index match() const { return match_; }  // durable at the follower and equal to the leader's log
  Index next() const { return next_; }    // the first entry of the next append
  const Inflights& inflights() const { return inflights_; }

  // True if no entries may be sent now.
  bool Paused() const;

  void BecomeProbe(Index next);  // raised to match + 1 if below
  void BecomeReplicate();
  void BecomeSnapshot();

  // The follower acknowledges all up to `index`. True if that was news.
  bool Acknowledge(Index index);
  // The follower has no entry like the leader's at `index`; the logs may agree up to
  // `agree_at_most`. False if that is an answer to a question of long ago.
  bool Reject(Index index, Index agree_at_most);
  // An append with the entries next() .. last was sent; last < next() if it had none.
  void Sent(Index last, uint64_t bytes);
  // Anything of the follower: one more probe may go out.
  void Resume() { probe_outstanding_ = false; }
  // No probe before the follower's next sign of life.
  void Pause() { probe_outstanding_ = true; }
  // Once per heartbeat interval: true if appends are in flight and none was acknowledged since the
  // last call, so that one of them may be lost.
  bool StalledSinceLastCheck();

  // The local log's own Progress on the leader: it has no messages.
  void SetLocal(Index stable, Index last) {
    match_ = stable;
    next_ = last + 1;
  }

  bool recent_active = false;  // heard of since the last check of the quorum
  bool is_learner = false;
  Index sent_commit;      // the largest commit index that it has been told, if nothing was lost
  ReadRound acked_round;  // the newest read round that it has acknowledged

  // A member that was removed is told its removal before the leader forgets it: it hears of the
  // entry at `entry` and of its commitment, or `ticks_left` runs out.
  struct Departure {
    Index entry;
    uint32_t ticks_left = 0;
  };
  std::optional<Departure> departure;

 private:
  PeerState state_ = PeerState::kProbe;
  Index match_;
  Index next_;
  Index match_at_check_;
  bool probe_outstanding_ = false;
  Inflights inflights_;
};

}  // namespace conclave::raft
