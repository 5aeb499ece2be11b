// DoubleBarrier: all begin together, and all end together.
//
//   conclave::DoubleBarrier barrier(session, "barriers/step", /*members=*/3);
//   absl::Status in = barrier.Enter();         // until three are here
//   ... the work of this step ...
//   auto out = barrier.Leave();                // until all have left, or have died
//   if (out.ok() && !out->lost.empty()) ...    // somebody died inside
//
// It can be used again and again: each time is a round. Who comes while a round is on, or when it
// has its members already, waits for the next one. The round's number is the create revision of its
// key, and grows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/coordination/double_barrier_plan.h"

namespace conclave {

class Patience;

// How it stands with a double barrier. Members are named by their leases in hex.
struct Occupancy {
  int64_t round = 0;  // 0: none is on
  int waiting = 0;    // to enter
  int inside = 0;
  std::vector<std::string> lost{};  // died inside, in this round
};

struct Departure {
  int64_t round = 0;
  // Who died inside. Absent if that is not known any more, for the next round has ended as well.
  std::optional<std::vector<std::string>> lost{};
};

// Thread: any, one Enter or Leave at a time; the session must outlive it. One membership per
// session. Limit: kMembersMax.
class DoubleBarrier {
 public:
  static constexpr int kMembersMax = 100;  // all are compared in one transaction; servers allow 128

  // What cannot be makes every call InvalidArgument.
  DoubleBarrier(const Session& session, std::string_view name, int members);

  // OK: `members` are inside, and all of them were alive at the moment the way opened.
  // DeadlineExceeded, Cancelled as asked, and we do not wait any more. Aborted: the session is
  // lost, or our key. FailedPrecondition: others expect another number of members, or we are inside
  // already.
  absl::Status Enter(const CallOptions& call = {});
  // DeadlineExceeded: we have left, others have not yet; Leave again to go on waiting. Aborted: the
  // session or our key was lost while we were inside. FailedPrecondition: we are not inside.
  absl::StatusOr<Departure> Leave(const CallOptions& call = {});
  absl::StatusOr<Occupancy> Look(const CallOptions& call = {}) const;

 private:
  absl::Status Valid() const;
  absl::Status EnterRound(Patience& patience);
  // What to answer instead of `why`, for we may have been let in meanwhile.
  absl::Status GiveUp(const absl::Status& why);
  absl::StatusOr<DoubleBarrierView> AwaitRoundEnd(Patience& patience, DoubleBarrierView view,
                                                  int64_t round);
  absl::StatusOr<DoubleBarrierView> Read(Patience& patience) const;

  const std::shared_ptr<SessionRep> session_;
  const std::string name_;
  const int members_;
  const DoubleBarrierPlan plan_;
  int64_t own_revision_ = 0;  // of our key; 0: we neither wait nor are inside
  int64_t round_ = 0;         // 0: not inside
  bool left_ = false;         // our key is gone; only the others are waited for
};

}  // namespace conclave
