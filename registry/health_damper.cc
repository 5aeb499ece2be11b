#include "conclave/registry/health_damper.h"

#include <utility>

namespace conclave {

HealthDamper::HealthDamper(Engine& engine, const Options& options,
                           std::function<void(const absl::Status&)> publish)
    : engine_(engine), options_(options), publish_(std::move(publish)) {}

void HealthDamper::Report(const absl::Status& check) {
  if (publish_ == nullptr) return;
  if (!check.ok()) {
    good_ = 0;
    ++bad_;
    engine_.CancelTimer(hold_);
    if (up_ ? bad_ < options_.fall : ever_up_ || bad_ > 1) return;
    up_ = false;
    publish_(check);  // also before the first good one: it is the reason why it is down
    return;
  }
  bad_ = 0;
  ++good_;
  if (up_ || (ever_up_ && good_ != options_.rise)) return;
  if (!ever_up_ || options_.hold == Duration(0)) return Rise();
  hold_ = engine_.After(options_.hold, [weak = weak_from_this()] {
    if (std::shared_ptr<HealthDamper> self = weak.lock()) self->Rise();
  });
}

void HealthDamper::Rise() {
  if (publish_ == nullptr) return;
  up_ = true;
  ever_up_ = true;
  publish_(absl::OkStatus());
}

void HealthDamper::Stop() {
  publish_ = nullptr;
  engine_.CancelTimer(hold_);
}

}  // namespace conclave
