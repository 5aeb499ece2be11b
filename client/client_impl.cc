#include "conclave/client/client_impl.h"

#include <algorithm>
#include <random>

#include "absl/time/clock.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/client/grpc/io_loop.h"

namespace conclave {
namespace {

// Batches of watches that may wait for the callback thread before the client stops reading the
// stream.
constexpr int kWatchBacklogMax = 1024;
constexpr Duration kKeepaliveTimeMin = std::chrono::seconds(10);

Duration ToDuration(absl::Duration duration) { return absl::ToChronoNanoseconds(duration); }

EngineOptions EngineOptionsOf(const ConnectOptions& options,
                              const std::vector<std::string>& endpoints) {
  return {.endpoints = endpoints,
          .seed = std::random_device{}() * uint64_t{0x9e3779b97f4a7c15} + std::random_device{}(),
          .attempt_timeout = ToDuration(options.attempt_timeout),
          .watch_silence = ToDuration(options.watch_silence),
          .watch_answer_timeout = ToDuration(options.watch_answer_timeout)};
}

// All but the engine's part.
IoLoopOptions LoopOptionsOf(const ConnectOptions& options) {
  return {.keepalive_time = std::max(kKeepaliveTimeMin, ToDuration(options.keepalive_time)),
          .keepalive_timeout = ToDuration(options.keepalive_timeout)};
}

ConnectOptions Complete(ConnectOptions options) {
  if (!options.log_sink) options.log_sink = LogToStderr;
  return options;
}

}  // namespace

ClientImpl::ClientImpl(ConnectOptions options, std::vector<std::string> endpoints,
                       LoopFactory make_loop)
    : options_(Complete(std::move(options))),
      endpoints_(std::move(endpoints)),
      loop_(make_loop(EngineOptionsOf(options_, endpoints_))) {}

std::shared_ptr<ClientImpl> ClientImpl::Make(ConnectOptions options,
                                             std::vector<std::string> endpoints) {
  IoLoopOptions settings = LoopOptionsOf(options);
  return Make(std::move(options), std::move(endpoints),
              [settings = std::move(settings)](EngineOptions engine) mutable {
                settings.endpoints = engine.endpoints;
                settings.engine = std::move(engine);
                return std::make_unique<IoLoop>(std::move(settings));
              });
}

std::shared_ptr<ClientImpl> ClientImpl::Make(ConnectOptions options,
                                             std::vector<std::string> endpoints,
                                             LoopFactory make_loop) {
  // The last handle may go on the loop's thread, which cannot join itself: the callback thread ends
  // it.
  return std::shared_ptr<ClientImpl>(
      new ClientImpl(std::move(options), std::move(endpoints), std::move(make_loop)),
      [](ClientImpl* impl) {
        if (impl->loop().OnThisThread()) {
          impl->callbacks().Run([impl] { delete impl; });
        } else {
          delete impl;
        }
      });
}

Instant ClientImpl::After(absl::Duration duration) const {
  const Instant now = loop_->Now();
  if (duration >= absl::FromChrono(kNever - now)) return kNever;
  return now + ToDuration(std::max(duration, absl::ZeroDuration()));
}

Instant ClientImpl::PatientDeadlineOf(const CallOptions& call) const {
  const absl::Duration timeout = call.timeout.value_or(absl::InfiniteDuration());
  return After(std::min(timeout, call.deadline - absl::Now()));
}

Instant ClientImpl::DeadlineOf(const CallOptions& call) const {
  CallOptions with_default;
  with_default.timeout = call.timeout;
  with_default.deadline = call.deadline;
  // A deadline of the caller's own stands alone; the default is for calls that name nothing.
  if (!call.timeout.has_value() && call.deadline == absl::InfiniteFuture()) {
    with_default.timeout = options_.request_timeout;
  }
  return PatientDeadlineOf(with_default);
}

void ClientImpl::BatchQueued(Engine& engine) {
  if (++watch_backlog_ < kWatchBacklogMax) return;
  watches_paused_ = true;
  engine.watches().Pause(true);
}

void ClientImpl::BatchDone() {
  if (--watch_backlog_ > kWatchBacklogMax / 2 || !watches_paused_.exchange(false)) return;
  loop_->Post([](Engine& engine) { engine.watches().Pause(false); });
}

// ---- Session
// ---------------------------------------------------------------------------------------

SessionHealth SessionRep::health() const {
  const SessionHealth health = health_.load();
  const bool overdue = impl_->loop().Now() >= deadline_.load();
  return overdue ? SessionHealth::kLost : health;
}

bool SessionRep::alive() const { return health() != SessionHealth::kLost; }

void SessionRep::OnHealth(const std::shared_ptr<SessionRep>& self, SessionHealth health,
                          Instant deadline) {
  deadline_ = deadline;
  if (health_.exchange(health) == health) return;
  if (health == SessionHealth::kLost) impl_->signals().Run([self] { self->stop_.request_stop(); });
  impl_->callbacks().Run([self, health] { self->on_health_.Run(health); });
}

absl::Status SessionRep::Close(const CallOptions& call) {
  const Instant deadline = impl_->DeadlineOf(call);
  std::shared_ptr<SessionCore> core = core_;
  absl::StatusOr<bool> closed = WaitForCall<bool>(
      *impl_, call,
      [core, deadline](Engine&, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
        core->Close(deadline, [done = std::move(done)](const absl::Status& status) mutable {
          if (status.ok()) return done(true);
          done(status);
        });
        return 0;
      });
  on_health_.Cancel();
  return closed.status();
}

void SessionRep::Abandon() { on_health_.Cancel(); }

}  // namespace conclave
