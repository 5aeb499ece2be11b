#include "conclave/server/raft/tracker/progress.h"

#include <algorithm>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::raft {

bool Progress::Paused() const {
  switch (state_) {
    case PeerState::kProbe:
      return probe_outstanding_;
    case PeerState::kReplicate:
      return inflights_.Full() || (MUTANT("inflight-appends-leak") && inflights_.count() >= 8);
    case PeerState::kSnapshot:
      return true;
  }
  return true;
}

void Progress::BecomeProbe(Index next) {
  state_ = PeerState::kProbe;
  next_ = std::max(next, match_ + 1);
  probe_outstanding_ = false;
  inflights_.Reset();
}

void Progress::BecomeReplicate() {
  state_ = PeerState::kReplicate;
  next_ = match_ + 1;
  match_at_check_ = match_;
  probe_outstanding_ = false;
  inflights_.Reset();
}

void Progress::BecomeSnapshot() {
  state_ = PeerState::kSnapshot;
  probe_outstanding_ = false;
  inflights_.Reset();
}

bool Progress::Acknowledge(Index index) {
  inflights_.FreeTo(index);
  if (index <= match_) return false;
  match_ = index;
  next_ = std::max(next_, match_ + 1);
  return true;
}

// In state Probe exactly one question is open: whether next - 1 is there. An answer about another
// index is an old one.
//
//     leader   1 1 1 4 4 5 5 6       next = 9, asks for (8, term 6)
//     follower 1 1 1 2 2 2 3         rejects 8; hint (7, term 3): nothing of it has a term above 3
//     leader: its last entry with a term <= 3 is (3, term 1) -> next = 4, in one step
//
// In state Replicate an answer at or below match is an old one; any other means that an append was
// lost.
bool Progress::Reject(Index index, Index agree_at_most) {
  if (state_ == PeerState::kSnapshot) return false;
  if (state_ == PeerState::kReplicate ? index <= match_ : index + 1 != next_) {
    REACHED("raft: an old rejection");
    return false;
  }
  BecomeProbe(std::min(index, agree_at_most + 1));
  return true;
}

void Progress::Sent(Index last, uint64_t bytes) {
  if (state_ == PeerState::kProbe) {
    probe_outstanding_ = true;
    return;
  }
  if (last < next_) return;
  CONCLAVE_CHECK(state_ == PeerState::kReplicate, "appends are not sent beside a snapshot");
  inflights_.Add(last, bytes);
  next_ = last + 1;
}

bool Progress::StalledSinceLastCheck() {
  const bool stalled =
      state_ == PeerState::kReplicate && next_ - 1 > match_ && match_ == match_at_check_;
  match_at_check_ = match_;
  return stalled;
}

}  // namespace conclave::raft
