#include "conclave/client/core/lock_delay.h"

#include <chrono>
#include <utility>

#include "absl/time/time.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kMargin = std::chrono::milliseconds(500);

}  // namespace

void LockDelay::Place(const Compare& condition, Placed placed) {
  if (lease_ != 0) return Put(condition, std::move(placed));
  const Instant sent_at = engine_.now();
  const Duration ttl = request_.duration + request_.duration / 2;
  const int64_t seconds = std::chrono::ceil<std::chrono::seconds>(ttl).count();
  calls::Grant(engine_, seconds, 0, CallKind::kRead, sent_at + kStepTimeout,
               [this, condition, sent_at,
                placed = std::move(placed)](absl::StatusOr<GrantResult> grant) mutable {
                 if (!grant.ok()) return placed(grant.status());
                 lease_ = grant->id;
                 if (ended_) {
                   Withdraw();
                   return placed(absl::AbortedError("not wanted any more"));
                 }
                 engine_.leases().Keep(lease_, absl::ToChronoNanoseconds(grant->ttl), kMargin,
                                       sent_at, [](SessionHealth, Instant) {});
                 Put(condition, std::move(placed));
               });
}

void LockDelay::Put(const Compare& condition, Placed placed) {
  attempted_ = true;
  TxnRequest put{.conditions = {condition},
                 .success = {conclave::Put(request_.hold_key, request_.holder, {.lease = lease_})}};
  calls::Txn(engine_, put, engine_.now() + kStepTimeout,
             [this, placed = std::move(placed)](absl::StatusOr<TxnResult> result) mutable {
               // The lease may be gone if this took long: begin anew.
               if (absl::IsNotFound(result.status())) {
                 engine_.leases().Forget(lease_);
                 lease_ = 0;
                 absl::Status gone = absl::UnavailableError("the lease of the hold is gone");
                 SetErrorDetail(gone, {.retryable = true});
                 return placed(gone);
               }
               if (!result.ok()) return placed(result.status());
               placed(result->succeeded ? absl::OkStatus()
                                        : absl::AbortedError("our place in the queue is gone"));
             });
}

void LockDelay::Withdraw() {
  ended_ = true;
  if (lease_ == 0) return;
  engine_.leases().Forget(lease_);
  calls::Revoke(engine_, lease_, engine_.now() + kStepTimeout,
                [](const absl::StatusOr<int64_t>&) {});
  lease_ = 0;
}

void LockDelay::Abandon() {
  ended_ = true;
  engine_.leases().Forget(lease_);
  lease_ = 0;
}

}  // namespace conclave
