#include "conclave/client/client_impl.h"

#include <algorithm>
#include <random>

#include "absl/time/clock.h"
#include "conclave/client/client_metrics.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/client/dns/srv_lookup.h"
#include "conclave/client/grpc/io_loop.h"
#include "conclave/client/srv_feed.h"

namespace conclave {
namespace {

// Batches of watches that may wait for the callback thread before the client stops reading the
// stream.
constexpr int kWatchBacklogMax = 1024;
constexpr Duration kKeepaliveTimeMin = std::chrono::seconds(10);
constexpr Duration kSyncIntervalMin = std::chrono::seconds(1);
constexpr Duration kSyncIntervalMax = std::chrono::hours(24 * 365);
constexpr Duration kSrvInterval = std::chrono::minutes(1);  // for those who name none
constexpr Duration kSampleInterval = std::chrono::seconds(1);

Duration ToDuration(absl::Duration duration) { return absl::ToChronoNanoseconds(duration); }

// All but the engine's part.
IoLoopOptions LoopOptionsOf(const ConnectOptions& options) {
  return {.keepalive_time = std::max(kKeepaliveTimeMin, ToDuration(options.keepalive_time)),
          .keepalive_timeout = ToDuration(options.keepalive_timeout),
          .tls = options.tls};
}

ConnectOptions Complete(ConnectOptions options) {
  if (!options.log_sink) options.log_sink = LogToStderr;
  return options;
}

}  // namespace

ClientImpl::ClientImpl(ConnectOptions options, std::vector<std::string> endpoints,
                       LoopFactory make_loop)
    : options_(Complete(std::move(options))),
      metrics_(options_.metrics == nullptr ? nullptr
                                           : std::make_unique<ClientMetrics>(options_.metrics)),
      endpoints_(std::move(endpoints)),
      loop_(make_loop(EngineOptionsOf(endpoints_))) {
  StartFeeds();
}

// The feed's thread puts work into the loop: it ends before the loop does.
ClientImpl::~ClientImpl() {
  if (srv_feed_ != nullptr) srv_feed_->Stop();
}

EngineOptions ClientImpl::EngineOptionsOf(const std::vector<std::string>& endpoints) const {
  return {.endpoints = endpoints,
          .seed = std::random_device{}() * uint64_t{0x9e3779b97f4a7c15} + std::random_device{}(),
          .name_space = NameSpace(options_.name_space),
          .user = options_.user,
          .password = options_.password,
          .attempt_timeout = ToDuration(options_.attempt_timeout),
          .watch_silence = ToDuration(options_.watch_silence),
          .watch_answer_timeout = ToDuration(options_.watch_answer_timeout),
          .retry_budget = options_.retry_budget,
          .log = options_.log_sink,
          .observer = metrics_.get(),
          .vitals = vitals_};
}

void ClientImpl::StartFeeds() {
  Duration interval(0);
  if (options_.auto_sync_interval > absl::ZeroDuration()) {
    interval =
        std::clamp(ToDuration(options_.auto_sync_interval), kSyncIntervalMin, kSyncIntervalMax);
  }
  std::vector<SrvTarget> targets;
  for (const std::string& text : options_.endpoints) {
    if (!IsSrvTarget(text)) continue;
    targets.push_back(*ParseSrvTarget(text));  // Connect has refused bad ones
    targets.back().uses_tls = options_.tls.has_value();
  }
  std::vector<std::string> given = endpoints_;
  if (!targets.empty()) {
    srv_feed_ = std::make_unique<SrvFeed>(*loop_, std::move(targets),
                                          interval > Duration(0) ? interval : kSrvInterval,
                                          [this, given](std::vector<std::string> found) {
                                            found.insert(found.end(), given.begin(), given.end());
                                            endpoint_sync_->SetGiven(std::move(found));
                                          });
  }
  loop_->Post([this, given = std::move(given), interval](Engine& engine) mutable {
    endpoint_sync_ = std::make_unique<EndpointSync>(
        engine, std::move(given), interval, options_.tls.has_value(),
        [this](const std::vector<EndpointPool::Endpoint>& endpoints) {
          std::lock_guard lock(endpoints_mutex_);
          endpoints_.clear();
          for (const EndpointPool::Endpoint& each : endpoints) endpoints_.push_back(each.name);
        });
    if (srv_feed_ != nullptr) srv_feed_->Start(engine);
    if (metrics_ != nullptr) SampleMetrics(engine);
  });
}

void ClientImpl::SampleMetrics(Engine& engine) {
  ClientMetrics::Sample sample{
      .endpoints = engine.pool().States(), .now = engine.now(), .backlog = watch_backlog_};
  if (std::optional<int64_t> received = engine.watches().SlowestReceived()) {
    sample.watch_lag = std::max<int64_t>(0, vitals_->newest_revision - *received);
    const Instant heard = vitals_->watch_heard;
    if (heard != Instant{}) {
      sample.watch_silence_s = std::chrono::duration<double>(engine.now() - heard).count();
    }
  }
  metrics_->OnSample(sample);
  engine.After(kSampleInterval, [this, &engine] { SampleMetrics(engine); });
}

std::vector<std::string> ClientImpl::endpoints() const {
  std::lock_guard lock(endpoints_mutex_);
  return endpoints_;
}

std::shared_ptr<ClientImpl> ClientImpl::Make(ConnectOptions options,
                                             std::vector<std::string> endpoints) {
  IoLoopOptions settings = LoopOptionsOf(options);
  return Make(std::move(options), std::move(endpoints),
              [settings = std::move(settings)](EngineOptions engine) mutable {
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
