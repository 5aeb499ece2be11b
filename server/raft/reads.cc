#include "conclave/server/raft/reads.h"

#include <algorithm>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::raft {

void LeaderReads::AddPeer(PeerRead read) {
  const bool joins = MUTANT("read-joins-an-open-round") && !open_.empty();
  std::vector<PeerRead>& peers = joins ? open_.back().peers : waiting_.peers;
  for (PeerRead& waiting : peers) {
    if (waiting.peer == read.peer) {
      waiting.round = std::max(waiting.round, read.round);
      return;
    }
  }
  peers.push_back(read);
}

bool LeaderReads::WantsRound() const {
  return (!waiting_.local.empty() || !waiting_.peers.empty()) && open_.size() < kMaxOpenRounds;
}

void LeaderReads::OpenRound(Index commit) {
  ++newest_;
  waiting_.round = newest_;
  waiting_.index = commit;
  open_.push_back(std::move(waiting_));
  waiting_ = {};
}

void LeaderReads::Confirm(ReadRound round, Confirmed* out) {
  while (!open_.empty() && open_.front().round <= round) {
    const Batch& batch = open_.front();
    local_count_ -= batch.local.size();
    for (ReadId id : batch.local) out->local.push_back({id, batch.index});
    for (const PeerRead& read : batch.peers) out->peers.push_back({read, batch.index});
    open_.pop_front();
  }
}

void LeaderReads::TakeLocal(std::vector<ReadId>* out) {
  for (const Batch& batch : open_) out->insert(out->end(), batch.local.begin(), batch.local.end());
  out->insert(out->end(), waiting_.local.begin(), waiting_.local.end());
  open_.clear();
  waiting_ = {};
  local_count_ = 0;
}

void FollowerReads::Ask(ReadRound round) {
  CONCLAVE_CHECK(round > newest_);
  newest_ = round;
  ticks_ = 0;
  retry_ = false;
  count_asked_ += waiting_.size();
  // A repetition needs no batch of its own for long: the next one stands for it.
  if (!asked_.empty() && asked_.back().ids.empty()) asked_.pop_back();
  asked_.push_back({round, std::move(waiting_)});
  waiting_.clear();
}

void FollowerReads::Answer(ReadRound round, Index index, std::vector<ReadState>* out) {
  if (asked_.empty() || round < asked_.front().round || round > newest_) {
    REACHED("raft: an answer to reads that comes too late");
    return;
  }
  while (!asked_.empty() && asked_.front().round <= round) {
    for (ReadId id : asked_.front().ids) out->push_back({id, index});
    count_asked_ -= asked_.front().ids.size();
    asked_.pop_front();
  }
  ticks_ = 0;
  if (asked_.empty()) retry_ = false;
}

void FollowerReads::Tick(uint32_t retry_ticks) {
  if (asked_.empty() || ++ticks_ < retry_ticks || MUTANT("read-never-asked-again")) return;
  REACHED("raft: a follower asks for its reads again");
  ticks_ = 0;
  retry_ = true;
}

void FollowerReads::TakeAll(std::vector<ReadId>* out) {
  for (const Batch& batch : asked_) out->insert(out->end(), batch.ids.begin(), batch.ids.end());
  out->insert(out->end(), waiting_.begin(), waiting_.end());
  asked_.clear();
  waiting_.clear();
  count_asked_ = 0;
  retry_ = false;
}

}  // namespace conclave::raft
