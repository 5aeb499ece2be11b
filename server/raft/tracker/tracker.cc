#include "conclave/server/raft/tracker/tracker.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::raft {
namespace {

bool Has(const std::vector<NodeId>& sorted, NodeId id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

}  // namespace

void ProgressTracker::SetConf(const ConfState& conf, Index entry, Index next) {
  quorum_ = JointConfig(conf);
  const auto add = [&](NodeId id, bool is_learner) {
    const auto found = all_.find(id);
    if (found != all_.end() && found->second.departure.has_value()) all_.erase(found);
    auto [at, is_new] =
        all_.try_emplace(id, next, limits_.max_inflight_messages, limits_.max_inflight_bytes);
    at->second.is_learner = is_learner;
    // A new member is not counted as silent before it could say anything.
    if (is_new) at->second.recent_active = true;
  };
  quorum_.ForEach([&](NodeId id) { add(id, false); });
  for (NodeId id : conf.learners) add(id, true);

  for (auto at = all_.begin(); at != all_.end();) {
    auto& [id, progress] = *at;
    if (quorum_.Contains(id) || Has(conf.learners, id)) {
      ++at;
    } else if (id == self_) {
      at = all_.erase(at);
    } else {
      if (!progress.departure.has_value()) progress.departure = {entry, limits_.departure_ticks};
      ++at;
    }
  }
}

Progress* ProgressTracker::Find(NodeId id) {
  const auto found = all_.find(id);
  return found == all_.end() ? nullptr : &found->second;
}

const Progress* ProgressTracker::Find(NodeId id) const {
  const auto found = all_.find(id);
  return found == all_.end() ? nullptr : &found->second;
}

Index ProgressTracker::CommittedIndex() const {
  if (MUTANT("leader-commits-alone") && quorum_.Contains(self_)) return all_.at(self_).match();
  return quorum_.Committed<Index>([&](NodeId id) { return all_.at(id).match(); });
}

ReadRound ProgressTracker::AcknowledgedRound(ReadRound newest) const {
  return quorum_.Committed<ReadRound>(
      [&](NodeId id) { return id == self_ ? newest : all_.at(id).acked_round; });
}

bool ProgressTracker::TakeQuorumActive() {
  const VoteResult result = quorum_.Result(
      [&](NodeId id) -> std::optional<bool> { return id == self_ || all_.at(id).recent_active; });
  for (auto& [id, progress] : all_) progress.recent_active = false;
  return result == VoteResult::kWon;
}

void ProgressTracker::TickDepartures() {
  for (auto& [id, progress] : all_) {
    if (progress.departure.has_value() && progress.departure->ticks_left > 0) {
      --progress.departure->ticks_left;
    }
  }
  DropDeparted();
}

void ProgressTracker::DropDeparted() {
  std::erase_if(all_, [](const auto& item) {
    const Progress& progress = item.second;
    if (!progress.departure.has_value()) return false;
    if (progress.departure->ticks_left == 0) REACHED("raft: who leaves was told for long enough");
    return progress.departure->ticks_left == 0 || progress.sent_commit >= progress.departure->entry;
  });
}

}  // namespace conclave::raft
