// MajorityConfig: a set of voters that decides by more than half of its members.
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "conclave/server/raft/quorum/vote_result.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// Immutable after construction. The empty set decides nothing and hinders nothing: it has committed
// everything and wins every vote, so that it is the neutral half of a JointConfig.
class MajorityConfig {
 public:
  MajorityConfig() = default;
  // `voters` is sorted and without repetition.
  explicit MajorityConfig(std::vector<NodeId> voters) : voters_(std::move(voters)) {}

  const std::vector<NodeId>& voters() const { return voters_; }
  bool empty() const { return voters_.empty(); }
  bool Contains(NodeId id) const { return std::binary_search(voters_.begin(), voters_.end(), id); }
  size_t quorum() const { return voters_.size() / 2 + 1; }

  // The largest number that a quorum has acknowledged; for log indices, the commit index.
  // `acked(id)` is what voter `id` has acknowledged, 0 if nothing.
  //
  // With the acknowledged numbers in ascending order, the one that a quorum q of n has reached is
  // the q-th from the top, at position n - q:
  //
  //     n  q  n-q   acknowledged     committed
  //     1  1   0    [7]              7
  //     2  2   0    [5 7]            5
  //     3  2   1    [2 5 7]            5
  //     4  3   1    [2 5 7 8]          5
  //     5  3   2    [2 4 5 7 8]          5
  template <typename Number, typename Acked>
  Number Committed(const Acked& acked) const {
    if (voters_.empty()) return Number(std::numeric_limits<uint64_t>::max());
    absl::InlinedVector<Number, kUsualVoters> numbers;
    for (NodeId id : voters_) numbers.push_back(acked(id));
    const auto at = numbers.begin() + static_cast<ptrdiff_t>(numbers.size() - quorum());
    std::nth_element(numbers.begin(), at, numbers.end());
    return *at;
  }

  // `vote(id)`: nullopt if voter `id` has not answered.
  template <typename Vote>
  VoteResult Result(const Vote& vote) const {
    if (voters_.empty()) return VoteResult::kWon;
    size_t granted = 0;
    size_t missing = 0;
    for (NodeId id : voters_) {
      const std::optional<bool> answer = vote(id);
      if (!answer.has_value()) {
        ++missing;
      } else if (*answer) {
        ++granted;
      }
    }
    if (granted >= quorum()) return VoteResult::kWon;
    return granted + missing >= quorum() ? VoteResult::kPending : VoteResult::kLost;
  }

 private:
  static constexpr size_t kUsualVoters = 9;  // beyond, Committed allocates

  std::vector<NodeId> voters_;
};

}  // namespace conclave::raft
