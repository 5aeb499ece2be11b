// JointConfig: two majorities that must agree (thesis 4.3), while membership changes from
// `outgoing` to `incoming`. Outside a change `outgoing` is empty, and it is a plain majority.
#pragma once

#include <algorithm>
#include <utility>

#include "conclave/server/raft/quorum/majority.h"
#include "conclave/server/raft/quorum/vote_result.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

class JointConfig {
 public:
  JointConfig() = default;
  JointConfig(MajorityConfig incoming, MajorityConfig outgoing)
      : incoming_(std::move(incoming)), outgoing_(std::move(outgoing)) {}
  explicit JointConfig(const ConfState& conf)
      : incoming_(conf.voters), outgoing_(conf.voters_outgoing) {}

  const MajorityConfig& incoming() const { return incoming_; }
  const MajorityConfig& outgoing() const { return outgoing_; }
  bool IsJoint() const { return !outgoing_.empty(); }
  bool Contains(NodeId id) const { return incoming_.Contains(id) || outgoing_.Contains(id); }

  // A number is acknowledged by both when each has acknowledged at least it: the smaller of the
  // two.
  template <typename Number, typename Acked>
  Number Committed(const Acked& acked) const {
    return std::min(incoming_.Committed<Number>(acked), outgoing_.Committed<Number>(acked));
  }

  // Won if both are won, lost if one is lost:
  //
  //              | pending  lost  won
  //     ---------+---------------------
  //     pending  | pending  lost  pending
  //     lost     | lost     lost  lost
  //     won      | pending  lost  won
  template <typename Vote>
  VoteResult Result(const Vote& vote) const {
    const VoteResult in = incoming_.Result(vote);
    const VoteResult out = outgoing_.Result(vote);
    if (in == out) return in;
    if (in == VoteResult::kLost || out == VoteResult::kLost) return VoteResult::kLost;
    return VoteResult::kPending;
  }

  // Calls visit(id) for each voter once, in ascending order.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    auto in = incoming_.voters().begin();
    auto out = outgoing_.voters().begin();
    const auto in_end = incoming_.voters().end();
    const auto out_end = outgoing_.voters().end();
    while (in != in_end || out != out_end) {
      const bool take_in = out == out_end || (in != in_end && *in <= *out);
      const NodeId id = take_in ? *in : *out;
      if (in != in_end && *in == id) ++in;
      if (out != out_end && *out == id) ++out;
      visit(id);
    }
  }

 private:
  MajorityConfig incoming_;
  MajorityConfig outgoing_;
};

}  // namespace conclave::raft
