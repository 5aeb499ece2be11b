#include "conclave/client/claim.h"

#include <utility>

#include "conclave/client/client_impl.h"
#include "conclave/client/core/contender.h"

namespace conclave {
namespace {

constexpr Duration kReleaseTimeout = std::chrono::seconds(10);

using StatusDone = absl::AnyInvocable<void(absl::StatusOr<bool>)>;

Contender::Left Reporting(StatusDone done) {
  return [done = std::move(done)](const absl::Status& status) mutable {
    if (status.ok()) return done(true);
    done(status);
  };
}

}  // namespace

Claim::Claim(std::shared_ptr<SessionRep> session) : session_(std::move(session)) {}

Claim::~Claim() { ReleaseAsync(); }

absl::StatusOr<Claim::Attempt> Claim::Acquire(const std::shared_ptr<SessionRep>& session,
                                              const Request& request, const CallOptions& call) {
  if (session == nullptr || !session->alive()) return absl::AbortedError("the session is lost");
  if (call.stop.stop_requested()) return absl::CancelledError("stop was requested before the call");
  ClientImpl& impl = *session->impl();
  const Instant deadline = impl.PatientDeadlineOf(call);
  std::shared_ptr<Claim> claim(new Claim(session));
  using Outcome = Contender::Outcome;
  // A stop goes to the contender, which removes its key before it answers; not to the call.
  std::stop_callback on_stop(call.stop, [&impl, claim] {
    impl.loop().Post([claim](Engine&) {
      if (claim->contender_ != nullptr) {
        claim->contender_->Cancel(absl::CancelledError("stop was requested"));
      }
    });
  });
  CallOptions without_stop;
  absl::StatusOr<Outcome> outcome = WaitForCall<Outcome>(
      impl, without_stop,
      [claim, request, deadline, stop = call.stop](
          Engine& engine, absl::AnyInvocable<void(absl::StatusOr<Outcome>)> done) -> CallId {
        auto contender = std::make_shared<Contender>(
            claim->session_->core(),
            Contender::Request{
                .name = request.name, .value = request.value, .only_try = request.only_try});
        claim->contender_ = contender;
        TimerId timer{};
        if (deadline != kNever) {
          timer = engine.At(deadline, [contender] {
            contender->Cancel(absl::DeadlineExceededError("not ours in time"));
          });
        }
        contender->Start(
            [claim, timer, &engine,
             done = std::move(done)](absl::StatusOr<Outcome> result) mutable {
              engine.CancelTimer(timer);
              if (result.ok() && result->owns) {
                claim->key_ = claim->contender_->key();
                claim->token_ = claim->contender_->token();
                claim->held_ = true;
              }
              done(std::move(result));
            },
            [weak = std::weak_ptr<Claim>(claim)](const absl::Status&) {
              if (std::shared_ptr<Claim> self = weak.lock()) self->OnLost();
            });
        if (stop.stop_requested()) contender->Cancel(absl::CancelledError("stop was requested"));
        return 0;
      });
  if (!outcome.ok()) return outcome.status();
  Attempt attempt{.owner = std::move(outcome->owner)};
  if (outcome->owns) attempt.claim = std::move(claim);
  return attempt;
}

void Claim::OnLost() {
  held_ = false;
  session_->impl()->signals().Run([stop = stop_]() mutable { stop.request_stop(); });
}

bool Claim::held() const { return held_ && session_->alive(); }

absl::Status Claim::Release(const CallOptions& call) {
  if (released_.exchange(true)) return absl::AbortedError("it was given up before");
  held_ = false;  // before the key goes: nobody else may believe that we still have it
  stop_.request_stop();
  ClientImpl& impl = *session_->impl();
  return WaitForCall<bool>(impl, call,
                           [contender = contender_, deadline = impl.DeadlineOf(call)](
                               Engine&, StatusDone done) -> CallId {
                             contender->Release(deadline, Reporting(std::move(done)));
                             return 0;
                           })
      .status();
}

void Claim::ReleaseAsync() {
  held_ = false;
  if (token_ == 0 || released_.exchange(true)) return;
  session_->impl()->loop().Post([contender = contender_](Engine& engine) {
    contender->Release(engine.now() + kReleaseTimeout, [](const absl::Status&) {});
  });
}

absl::Status Claim::Update(std::string_view value, const CallOptions& call) {
  if (!held()) return absl::AbortedError("it is not ours any more");
  ClientImpl& impl = *session_->impl();
  return WaitForCall<bool>(
             impl, call,
             [contender = contender_, text = std::string(value), deadline = impl.DeadlineOf(call)](
                 Engine&, StatusDone done) mutable -> CallId {
               contender->Update(std::move(text), deadline, Reporting(std::move(done)));
               return 0;
             })
      .status();
}

}  // namespace conclave
