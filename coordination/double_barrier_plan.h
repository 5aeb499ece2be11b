// What a member of a double barrier does next, from what it sees. Pure: no calls, no time.
//
// Keys of a barrier `name`:
//   <name>/waiters/<lease hex>   who waits to enter, and then is inside; value: the number of
//                                members it expects; on its session's lease
//   <name>/ready                 the way is open; value: who is in this round, their <lease hex>
//                                joined by commas. Its create revision is the round's number.
//   <name>/left/<lease hex>      who left in order; until the round is over
//   <name>/last                  the round that ended last: "<round> <who died inside, by commas>"
// While `ready` is there nobody joins, so a round ends when no waiter is left.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/client/core/types.h"

namespace conclave {

// The keys as of one revision.
struct DoubleBarrierView {
  int64_t revision = 0;
  std::optional<KeyValue> ready{};
  std::vector<KeyValue> waiters{};  // in the order of their coming
  std::vector<std::string> left{};  // keys
  std::optional<KeyValue> last{};
};

class DoubleBarrierPlan {
 public:
  // `lease` is ours.
  DoubleBarrierPlan(std::string_view name, LeaseId lease, int members);

  // ---- Requests.
  TxnRequest Join() const;  // succeeded: we wait now
  TxnRequest Look() const;  // as it is
  // Opens the way for the first `members` of view's waiters, if all of them are still there.
  TxnRequest Open(const DoubleBarrierView& view) const;
  // Takes our waiter's key away, unless we are let in already.
  TxnRequest GiveUp(int64_t own_revision) const;
  TxnRequest Leave(int64_t own_revision, int64_t round) const;
  // Ends the round: nobody is inside any more.
  TxnRequest Finish(const DoubleBarrierView& view) const;

  // The view in a result of Join or Look.
  static DoubleBarrierView ViewOf(const TxnResult& result, size_t first_range);

  // ---- Decisions.
  enum class Entering {
    kInside,    // we are in this round
    kOpen,      // enough are here: open the way
    kWait,      // for `ready`
    kRoundOn,   // a round without us is on: wait for its end
    kGone,      // our key is gone
    kMismatch,  // others expect another number of members
  };
  Entering OnEntering(const DoubleBarrierView& view) const;

  // Is the round `round` over?
  static bool RoundOver(const DoubleBarrierView& view, int64_t round);
  // Whose going to wait for: one of those inside, another one for each who waits, so that not all
  // wake up for each. view.waiters is not empty.
  const std::string& WaitFor(const DoubleBarrierView& view) const;
  // Who was in the round, and is neither inside nor has left in order.
  static std::vector<std::string> Lost(const DoubleBarrierView& view);
  // Who died inside the round, as its end recorded it; absent if a later round has ended since.
  static std::optional<std::vector<std::string>> LostIn(const DoubleBarrierView& view,
                                                        int64_t round);

  const KeyValue* Own(const DoubleBarrierView& view) const;
  const std::string& own_key() const { return own_; }
  const std::string& ready_key() const { return ready_; }

 private:
  bool LetIn(const DoubleBarrierView& view) const;

  const std::string waiters_;
  const std::string left_;
  const std::string id_;
  const std::string own_;
  const std::string ready_;
  const std::string last_;
  const LeaseId lease_;
  const int members_;
};

}  // namespace conclave
