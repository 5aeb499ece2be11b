#include "conclave/registry/health_monitor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

constexpr absl::Duration kIntervalMin = absl::Milliseconds(10);
constexpr int kThresholdMax = 1000;

Duration ToDuration(absl::Duration duration) { return absl::ToChronoNanoseconds(duration); }

}  // namespace

HealthCheck CustomCheck(std::function<absl::Status()> check, const CustomCheckOptions& options) {
  HealthCheck health;
  health.check = std::move(check);
  health.interval = options.interval;
  health.timeout = options.timeout;
  health.fall = options.fall;
  health.rise = options.rise;
  health.hold = options.hold;
  return health;
}

absl::Status ValidateHealthCheck(const HealthCheck& health) {
  if ((health.check == nullptr) == (health.source == nullptr)) {
    return absl::InvalidArgumentError("a health check has either a check or a source");
  }
  if (health.check != nullptr &&
      (health.interval < kIntervalMin || health.interval == absl::InfiniteDuration() ||
       health.timeout < kIntervalMin || health.timeout == absl::InfiniteDuration())) {
    return absl::InvalidArgumentError(
        "a health check's interval and timeout are at least 10 ms, and end");
  }
  if (health.fall < 1 || health.rise < 1 || health.fall > kThresholdMax ||
      health.rise > kThresholdMax || health.hold < absl::ZeroDuration() ||
      health.hold == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        "a health check's thresholds are in 1..1000, and its hold is not negative");
  }
  return absl::OkStatus();
}

HealthMonitor::HealthMonitor(std::shared_ptr<ClientImpl> client, HealthCheck health,
                             std::shared_ptr<Executor> checks,
                             std::function<void(const absl::Status&)> publish)
    : client_(std::move(client)),
      health_(std::move(health)),
      checks_(std::move(checks)),
      check_([check = health_.check](absl::Status* answer) { *answer = check(); }),
      publish_(std::move(publish)) {}

void HealthMonitor::Start(Engine& engine) {
  damper_ = std::make_shared<HealthDamper>(
      engine,
      HealthDamper::Options{
          .fall = health_.fall, .rise = health_.rise, .hold = ToDuration(health_.hold)},
      publish_);
  if (health_.check != nullptr) {
    due_ = engine.now();
    return Tick(engine);
  }
  std::lock_guard lock(mutex_);
  if (cancelled_) return;
  source_ = health_.source([weak = weak_from_this()](const absl::Status& health) {
    std::shared_ptr<HealthMonitor> self = weak.lock();
    if (self == nullptr) return;
    self->client_->loop().Post([self, health](Engine&) { self->damper_->Report(health); });
  });
}

void HealthMonitor::Cancel() {
  std::unique_ptr<HealthSource> source;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    source = std::move(source_);
  }
  source = nullptr;
  check_.Cancel();
  client_->loop().Post([self = shared_from_this()](Engine& engine) {
    self->stopped_ = true;
    engine.CancelTimer(self->timer_);
    engine.CancelTimer(self->patience_);
    if (self->damper_ != nullptr) self->damper_->Stop();
    self->publish_ = nullptr;
  });
}

void HealthMonitor::Tick(Engine& engine) {
  late_ = false;
  due_ = std::max(due_ + ToDuration(health_.interval), engine.now());
  checks_->Run([self = shared_from_this(), run = ++run_] { self->RunCheck(run); });
}

// On the checks' thread.
void HealthMonitor::RunCheck(uint64_t run) {
  client_->loop().Post(
      [self = shared_from_this(), run](Engine& engine) { self->OnStarted(engine, run); });
  absl::Status answer = absl::CancelledError("the registration is over");
  check_.Run(&answer);
  client_->loop().Post([self = shared_from_this(), run, answer](Engine& engine) {
    self->OnFinished(engine, run, answer);
  });
}

void HealthMonitor::OnStarted(Engine& engine, uint64_t run) {
  if (stopped_) return;
  patience_ = engine.After(ToDuration(health_.timeout), [self = shared_from_this(), &engine, run] {
    self->OnHanging(engine, run);
  });
}

void HealthMonitor::OnHanging(Engine& engine, uint64_t run) {
  late_ = true;
  damper_->Report(absl::DeadlineExceededError(absl::StrCat(
      "the health check has not answered within ", absl::FormatDuration(health_.timeout))));
  patience_ = engine.After(ToDuration(health_.interval), [self = shared_from_this(), &engine, run] {
    self->OnHanging(engine, run);
  });
}

void HealthMonitor::OnFinished(Engine& engine, uint64_t run, const absl::Status& answer) {
  if (stopped_ || run != run_) return;
  engine.CancelTimer(patience_);
  if (!late_) damper_->Report(answer);
  timer_ = engine.At(std::max(due_, engine.now()),
                     [self = shared_from_this(), &engine] { self->Tick(engine); });
}

}  // namespace conclave
