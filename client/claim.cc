#include "conclave/client/claim.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/contender.h"

namespace conclave {
namespace {

constexpr Duration kReleaseTimeout = std::chrono::seconds(10);
// A lock that is held too long goes when the holder's callback has returned, or after this.
constexpr Duration kOverrunPatience = std::chrono::seconds(1);

using StatusDone = absl::AnyInvocable<void(absl::StatusOr<bool>)>;

Contender::Left Reporting(StatusDone done) {
  return [done = std::move(done)](const absl::Status& status) mutable {
    if (status.ok()) return done(true);
    done(status);
  };
}

Contender::Request ToContender(const Claim::Request& request, SessionCore& session) {
  Contender::Request made{.name = request.name,
                          .value = request.value,
                          .only_try = request.only_try,
                          .rule = request.rule,
                          .keys = request.keys,
                          .local_queues = request.local_queues,
                          .beside_key = request.beside_key,
                          .beside_value = request.beside_value,
                          .companions = request.companions};
  if (request.number_keys) {
    const std::string suffix =
        absl::StrCat("-", absl::Hex(session.NextNumber()), request.key_suffix);
    for (std::string& key : made.keys) absl::StrAppend(&key, suffix);
  }
  if (request.delay > absl::ZeroDuration()) {
    made.delay =
        LockDelay::Request{.hold_key = HoldKey(request.name),
                           .holder = request.holder,
                           .duration = session.ttl() + absl::ToChronoNanoseconds(request.delay)};
  }
  return made;
}

}  // namespace

// One acquisition under way; it ends with `done`.
struct Claim::Attempting {
  Attempting(std::shared_ptr<Claim> the_claim, Request the_request, Acquired when_done)
      : claim(std::move(the_claim)), request(std::move(the_request)), done(std::move(when_done)) {}

  std::shared_ptr<Claim> claim;  // null once it has ended with success
  Request request;
  Acquired done;
  Instant begun{};
  TimerId timer{};
  // A stop goes to the contender, which removes its key before it answers. It only posts, so it can
  // be destroyed on the loop's thread while it runs.
  std::optional<std::stop_callback<std::function<void()>>> on_stop{};

  void Begin(const std::shared_ptr<Attempting>& self, Engine& engine, Instant deadline,
             const std::stop_token& stop);
  void End(Engine& engine, absl::StatusOr<Contender::Outcome> outcome);
};

void Claim::Attempting::Begin(const std::shared_ptr<Attempting>& self, Engine& engine,
                              Instant deadline, const std::stop_token& stop) {
  auto contender = std::make_shared<Contender>(claim->session_->core(),
                                               ToContender(request, *claim->session_->core()));
  claim->contender_ = contender;
  begun = engine.now();
  if (deadline != kNever) {
    timer = engine.At(deadline, [contender] {
      contender->Cancel(absl::DeadlineExceededError("not ours in time"));
    });
  }
  contender->Start(
      [self, &engine](absl::StatusOr<Contender::Outcome> outcome) {
        self->End(engine, std::move(outcome));
      },
      [weak = std::weak_ptr<Claim>(claim)](const absl::Status&) {
        if (std::shared_ptr<Claim> lost = weak.lock()) lost->OnLost();
      });
  if (!stop.stop_possible()) return;
  EngineLoop* loop = &claim->session_->impl()->loop();
  on_stop.emplace(stop, [loop, weak = std::weak_ptr<Contender>(contender)] {
    loop->Post([weak](Engine&) {
      std::shared_ptr<Contender> waiting = weak.lock();
      if (waiting != nullptr) waiting->Cancel(absl::CancelledError("stop was requested"));
    });
  });
}

void Claim::Attempting::End(Engine& engine, absl::StatusOr<Contender::Outcome> outcome) {
  engine.CancelTimer(timer);
  on_stop.reset();
  if (!outcome.ok()) {
    claim->metrics_.OnRefused(outcome.status());
    return done(outcome.status());
  }
  Attempt attempt{.owner = std::move(outcome->owner)};
  if (outcome->owns) {
    claim->metrics_.OnOwned(engine.now() - begun);
    claim->OnOwned(request.overrun);
    attempt.claim = std::move(claim);
  } else {
    claim->metrics_.OnBusy();
  }
  done(std::move(attempt));
}

Claim::Claim(std::shared_ptr<SessionRep> session, const Request& request)
    : session_(std::move(session)),
      metrics_(session_->impl()->metrics(), request.kind,
               request.name_in_metrics ? std::string_view(request.name) : std::string_view()) {}

Claim::~Claim() { ReleaseAsync(); }

absl::Status Claim::CheckStart(const std::shared_ptr<SessionRep>& session,
                               const CallOptions& call) {
  if (session == nullptr || !session->alive()) {
    return absl::AbortedError("the session is lost: open another one");
  }
  if (call.stop.stop_requested()) {
    return absl::CancelledError("stop was requested before the call");
  }
  return absl::OkStatus();
}

void Claim::AcquireAsync(const std::shared_ptr<SessionRep>& session, const Request& request,
                         const CallOptions& call, Acquired done) {
  if (absl::Status good = CheckStart(session, call); !good.ok()) return done(good);
  auto attempting = std::make_shared<Attempting>(
      std::shared_ptr<Claim>(new Claim(session, request)), request, std::move(done));
  session->impl()->loop().Post(
      [attempting, stop = call.stop, deadline = session->impl()->PatientDeadlineOf(call)](
          Engine& engine) { attempting->Begin(attempting, engine, deadline, stop); });
}

absl::StatusOr<Claim::Attempt> Claim::Acquire(const std::shared_ptr<SessionRep>& session,
                                              const Request& request, const CallOptions& call) {
  if (absl::Status good = CheckStart(session, call); !good.ok()) return good;
  ClientImpl& impl = *session->impl();
  CallOptions without_stop;  // a stop goes to the contender, not to the call
  return WaitForCall<Attempt>(
      impl, without_stop,
      [claim = std::shared_ptr<Claim>(new Claim(session, request)), request, stop = call.stop,
       deadline = impl.PatientDeadlineOf(call)](Engine& engine, Acquired done) -> CallId {
        auto attempting = std::make_shared<Attempting>(claim, request, std::move(done));
        attempting->Begin(attempting, engine, deadline, stop);
        return 0;
      });
}

void Claim::OnOwned(const Overrun& overrun) {
  keys_ = contender_->keys();
  token_ = contender_->token();
  value_ = contender_->value();
  held_ = true;
  if (overrun.max_hold == absl::InfiniteDuration()) return;
  session_->core()->engine().After(absl::ToChronoNanoseconds(overrun.max_hold),
                                   [weak = weak_from_this(), on_overrun = overrun.on_overrun] {
                                     if (std::shared_ptr<Claim> self = weak.lock())
                                       self->OnOverrun(on_overrun);
                                   });
}

void Claim::OnOverrun(const std::function<void()>& on_overrun) {
  if (!held_) return;
  ClientImpl& impl = *session_->impl();
  impl.Log(LogLevel::kWarning,
           absl::StrCat("the lock ", key(), " is held for longer than its max_hold and given up"));
  // The holder hears of it first: then only may the lock go to somebody else.
  const auto give_up = [weak = weak_from_this(), &impl] {
    impl.signals().Run([weak] {
      std::shared_ptr<Claim> self = weak.lock();
      if (self == nullptr) return;
      self->stop_.request_stop();
      self->ReleaseAsync();
    });
  };
  if (on_overrun == nullptr) return give_up();
  session_->core()->engine().After(kOverrunPatience, give_up);
  impl.callbacks().Run([on_overrun, give_up] {
    on_overrun();
    give_up();
  });
}

void Claim::OnLost() {
  held_ = false;
  metrics_.OnLost();
  session_->impl()->signals().Run([stop = stop_]() mutable { stop.request_stop(); });
}

bool Claim::held() const { return held_ && session_->alive(); }

absl::Status Claim::Release(const CallOptions& call) {
  if (released_.exchange(true)) return absl::AbortedError("it was given up before");
  metrics_.OnGivenUp();
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
  if (token_ == 0 || released_.exchange(true)) return;
  const bool believed = held_.exchange(false);
  metrics_.OnGivenUp();
  ClientImpl& impl = *session_->impl();
  impl.signals().Run([stop = stop_]() mutable { stop.request_stop(); });
  // Nobody waits for the outcome; but a loss that nobody had noticed is said.
  impl.loop().Post([contender = contender_, believed, key = key(),
                    weak = std::weak_ptr<SessionRep>(session_)](Engine& engine) {
    const auto said = [believed, key, weak](const absl::Status& status) {
      std::shared_ptr<SessionRep> session = weak.lock();
      // With the session everything on it goes, and that has been said.
      if (status.ok() || session == nullptr || !session->alive()) return;
      session->impl()->Log(believed ? LogLevel::kWarning : LogLevel::kInfo,
                           absl::StrCat("giving up ", key, ": ", status.ToString()));
    };
    contender->Release(engine.now() + kReleaseTimeout, said);
  });
}

absl::Status Claim::Update(std::string_view value, const CallOptions& call) {
  if (!held()) return absl::AbortedError("it is not ours any more");
  ClientImpl& impl = *session_->impl();
  return WaitForCall<bool>(
             impl, call,
             [contender = contender_, text = std::string(value), deadline = impl.DeadlineOf(call)](
                 Engine&, StatusDone done) mutable -> CallId {
               if (!contender->owning()) {
                 done(absl::AbortedError("it is not ours any more"));
                 return 0;
               }
               contender->Update(std::move(text), deadline, Reporting(std::move(done)));
               return 0;
             })
      .status();
}

}  // namespace conclave
