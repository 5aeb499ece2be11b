// Linearizable reads (thesis 6.4): how the leader confirms a read index for many reads at once, and
// how a follower asks the leader for one.
//
//     client reads a, b, c            leader                       followers
//     ---------------------------->   wait
//                       TakeReady     round 7 opens: index = commit, a b c belong to it
//                                     Heartbeat{round 7}  ------>  at once, without a disk write
//                                     <------ HeartbeatResponse{round 7}
//                                     quorum has acknowledged 7: all rounds <= 7 are confirmed
//     <--- a, b, c at that index
//
// Why it is right. A round's number is new when it opens, so an acknowledgement of it (or of a
// later one) was sent after the read came in. A quorum then still had no newer term, so nobody else
// had committed anything before the read came in; and commit covers all that was committed before,
// because the leader opens no round before it has committed an entry of its own term.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "conclave/server/raft/ready.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// Lives as long as one leadership.
class LeaderReads {
 public:
  // A follower's request: its newest one stands for all its earlier ones.
  struct PeerRead {
    NodeId peer;
    ReadRound round;  // the follower's number
  };
  struct Confirmed {
    std::vector<ReadState> local;
    std::vector<std::pair<PeerRead, Index>> peers;
  };

  void Add(ReadId id) {
    waiting_.local.push_back(id);
    ++local_count_;
  }
  void AddPeer(PeerRead read);

  // Reads wait and a round may open.
  bool WantsRound() const;
  // Opens one round for all waiting reads, at the commit index.
  void OpenRound(Index commit);
  // The newest round; 0: none was opened.
  ReadRound newest() const { return newest_; }
  // A quorum has acknowledged all rounds up to `round`.
  void Confirm(ReadRound round, Confirmed* out);

  // Reads of this member that are not answered.
  size_t local_count() const { return local_count_; }
  void TakeLocal(std::vector<ReadId>* out);

 private:
  // More are not opened before the oldest is confirmed: a slow quorum makes rounds larger, not
  // more.
  static constexpr size_t kMaxOpenRounds = 64;

  struct Batch {
    ReadRound round;
    Index index;
    std::vector<ReadId> local;
    std::vector<PeerRead> peers;
  };

  Batch waiting_;
  std::deque<Batch> open_;
  ReadRound newest_;
  size_t local_count_ = 0;
};

// Lives as long as one member follows one leader.
//
// A request or its answer may be lost: after a heartbeat interval without an answer the reads are
// asked for again under a new round. An answer counts for all reads that were asked for with its
// round or before; it is never taken for reads that came later, nor (by the random start of the
// numbers) for those of another life of this process.
class FollowerReads {
 public:
  void Add(ReadId id) { waiting_.push_back(id); }
  bool WantsRound() const { return !waiting_.empty() || retry_; }
  // All waiting reads are asked for under `round`, which is above all before.
  void Ask(ReadRound round);
  void Answer(ReadRound round, Index index, std::vector<ReadState>* out);
  void Tick(uint32_t retry_ticks);

  size_t count() const { return count_asked_ + waiting_.size(); }
  void TakeAll(std::vector<ReadId>* out);

 private:
  struct Batch {
    ReadRound round;
    std::vector<ReadId> ids;
  };

  std::vector<ReadId> waiting_;
  std::deque<Batch> asked_;
  ReadRound newest_;
  size_t count_asked_ = 0;
  uint32_t ticks_ = 0;  // since the last request or answer
  bool retry_ = false;
};

}  // namespace conclave::raft
