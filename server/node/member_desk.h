// MemberDesk: changes of membership on their way.
//
//   asked here     a client's call waits in the book until its change is applied here, known again
//                  by proposer and sequence, or until the leader refuses it
//   led here       changes wait in the queue for their turn: one is appended at a time, and checked
//                  when everything before it has been applied
//
// A change goes to the leader of one term and is good in that term only: it carries the number, and
// a leader of another ignores it. So as soon as an entry of a later term is applied, a change of an
// earlier one that has not come by never will, and is handed over again. A leader forgets its queue
// when it ceases to lead.
//
// Thread: the node's. Limits: kCallsMax, kQueueMax; both end by the patience of calls.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "conclave/base/time.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/node/peer_links.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

class MemberDesk {
 public:
  static constexpr size_t kCallsMax = 1'000;
  static constexpr size_t kQueueMax = 1'000;
  // Numbers of forwarded changes are told from those of lease requests by their highest bit.
  static constexpr uint64_t kForwardedBit = uint64_t{1} << 63;

  // A client's call.
  struct Call {
    CallId call;
    Instant arrived;
    size_t bytes = 0;  // of the request
    apply::MemberChange change;
    raft::Term handed;  // to the leader of this term; 0: to none yet
  };
  // A change at the leader.
  struct Queued {
    raft::NodeId from;       // who is told of a refusal
    uint64_t forwarded = 0;  // under this number; 0: it was asked here
    Instant arrived;
    apply::MemberCommand command;
  };

  // `first_sequence` differs from start to start, so that an entry of an earlier life is not taken
  // for one of this.
  MemberDesk(raft::NodeId self, uint64_t first_sequence)
      : self_(self), last_sequence_(first_sequence >> 2) {}

  // ---- Asked here

  bool full() const { return calls_.size() >= kCallsMax; }
  size_t calls() const { return calls_.size(); }
  void Add(Call call);
  // What no leader has yet goes to the one there is.
  void HandOver(raft::NodeId leader, raft::Term term, Instant now, PeerLinks* links);
  // The call whose change was applied; nothing if it is nobody's here.
  std::optional<Call> Applied(const apply::CommandHeader& header);
  // The call that the leader has refused, by the number in its answer.
  std::optional<Call> Refused(uint64_t forwarded);
  void TermApplied(raft::Term term);

  // Takes calls: those that arrived at or before `latest`, those that some leader has, all.
  using Ended = absl::FunctionRef<void(const Call&)>;
  void Expire(Instant latest, Ended ended);
  void FailHanded(Ended ended);
  void FailAll(Ended ended);

  // ---- Led here

  // A change from another member, which this one leads in `term`. False if it is none.
  bool Take(raft::NodeId from, const ForwardedRequest& request, raft::Term term, Instant now);
  bool has_queued() const { return !queue_.empty(); }
  const Queued& front() const { return queue_.front(); }
  void Pop() { queue_.pop_front(); }
  // Nobody waits any more for what arrived at or before `latest`.
  void DropOld(Instant latest);
  void DropQueue();

 private:
  void FailIf(absl::FunctionRef<bool(const Call&)> which, Ended ended);

  const raft::NodeId self_;
  uint64_t last_sequence_;
  absl::btree_map<uint64_t, Call> calls_;  // by sequence
  size_t unhanded_ = 0;
  std::deque<Queued> queue_;
  // What this leader has taken lately: the network may repeat it.
  std::deque<std::pair<raft::NodeId, uint64_t>> seen_;
};

}  // namespace conclave::node
