#include "conclave/client/patience.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/endpoint_pool.h"

namespace conclave {
namespace {

bool MayComeRight(const absl::Status& status) {
  return IsRetryable(status) || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

Patience::Patience(std::shared_ptr<ClientImpl> impl, std::shared_ptr<SessionRep> session,
                   const CallOptions& call)
    : impl_(std::move(impl)),
      session_(std::move(session)),
      deadline_(impl_->PatientDeadlineOf(call)),
      stop_(call.stop) {}

CallOptions Patience::ForCall() const {
  CallOptions call{.timeout = impl_->options().request_timeout, .stop = stop_};
  if (deadline_ != kNever) {
    call.timeout = std::min(*call.timeout, absl::FromChrono(deadline_ - impl_->loop().Now()));
  }
  return call;
}

CallOptions Patience::ForWait() const {
  CallOptions call{.stop = stop_};
  if (deadline_ != kNever) call.timeout = absl::FromChrono(deadline_ - impl_->loop().Now());
  return call;
}

CallOptions Patience::Bounded(const ClientImpl& impl, const CallOptions& call) {
  CallOptions bounded = call;
  if (!call.timeout.has_value() && call.deadline == absl::InfiniteFuture()) {
    bounded.timeout = impl.options().request_timeout;
  }
  return bounded;
}

absl::Status Patience::Check() const {
  if (stop_.stop_requested()) return absl::CancelledError("stop was requested");
  if (session_ != nullptr && !session_->alive()) {
    return absl::AbortedError("the session is lost");
  }
  if (impl_->loop().Now() >= deadline_) return absl::DeadlineExceededError("not in time");
  return absl::OkStatus();
}

absl::StatusOr<TxnResult> Patience::Read(const TxnRequest& request) {
  return CommitIdempotent(request);
}

absl::StatusOr<TxnResult> Patience::CommitIdempotent(const TxnRequest& request) {
  left_stray_ = false;
  for (;;) {
    if (absl::Status left = Check(); !left.ok()) return left;
    absl::StatusOr<TxnResult> result = Client(impl_).Commit(request, ForCall());
    left_stray_ |= IsOutcomeUnknown(result.status());
    if (result.ok()) {
      Succeeded();
      return result;
    }
    if (!MayComeRight(result.status()) && !IsOutcomeUnknown(result.status())) return result;
    if (absl::Status left = Pause(); !left.ok()) return left;
  }
}

absl::Status Patience::Pause(Duration base, Duration cap) {
  return Sleep([failures = failures_++, base, cap](Engine& engine) {
    return FullJitter(failures, base, cap, engine.prng());
  });
}

absl::Status Patience::Rest(Duration length) {
  return Sleep([length](Engine&) { return length; });
}

uint64_t Patience::Draw() {
  return *WaitForCall<uint64_t>(
      *impl_, {},
      [](Engine& engine, absl::AnyInvocable<void(absl::StatusOr<uint64_t>)> done) -> CallId {
        done(engine.prng().Next());
        return 0;
      });
}

absl::Status Patience::Sleep(absl::AnyInvocable<Duration(Engine&)> length) {
  struct Timer {
    TimerId id{};
    absl::AnyInvocable<void(absl::StatusOr<bool>)> done;
    void End() {
      if (done) std::exchange(done, nullptr)(true);
    }
  };
  auto timer = std::make_shared<Timer>();  // on the loop's thread
  std::stop_callback on_stop(stop_, [impl = impl_.get(), timer] {
    impl->loop().Post([timer](Engine& engine) {
      engine.CancelTimer(timer->id);
      timer->End();
    });
  });
  (void)WaitForCall<bool>(
      *impl_, {},
      [this, timer, length = std::move(length)](
          Engine& engine, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) mutable -> CallId {
        timer->done = std::move(done);
        const Instant end = std::min(deadline_, engine.now() + length(engine));
        timer->id = engine.At(end, [timer] { timer->End(); });
        if (stop_.stop_requested()) {
          engine.CancelTimer(timer->id);
          engine.Defer([timer] { timer->End(); });
        }
        return 0;
      });
  return Check();
}

absl::Status Patience::WaitForChange(const ChangeWait::Request& request) {
  if (absl::Status left = Check(); !left.ok()) return left;
  auto wait = std::make_shared<std::shared_ptr<ChangeWait>>();  // on the loop's thread
  std::stop_callback on_stop(stop_, [impl = impl_.get(), wait] {
    impl->loop().Post([wait](Engine&) {
      if (*wait != nullptr) (*wait)->Cancel(absl::CancelledError("stop was requested"));
    });
  });
  return WaitForCall<bool>(
             *impl_, {},
             [this, wait, request](Engine& engine,
                                   absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
               *wait = std::make_shared<ChangeWait>(
                   engine, session_ == nullptr ? nullptr : session_->core(), request);
               (*wait)->Start(deadline_,
                              [done = std::move(done)](const absl::Status& status) mutable {
                                if (status.ok()) return done(true);
                                done(status);
                              });
               if (stop_.stop_requested()) {
                 (*wait)->Cancel(absl::CancelledError("stop was requested"));
               }
               return 0;
             })
      .status();
}

}  // namespace conclave
