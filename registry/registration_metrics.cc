#include "conclave/registry/registration_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <utility>

namespace conclave {

struct RegistrationMetrics::Series {
  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Gauge& registered;
  prometheus::Counter& reregistrations;
  prometheus::Counter& repairs;
  int64_t reregistrations_seen = 0;  // on the loop's thread
  int64_t repairs_seen = 0;          // likewise
};

RegistrationMetrics::RegistrationMetrics(std::shared_ptr<prometheus::Registry> registry,
                                         const Instance& instance) {
  if (registry == nullptr) return;
  auto& registered = prometheus::BuildGauge()
                         .Name("conclave_registration_registered")
                         .Help("1 while the instance stands in the registry, else 0")
                         .Register(*registry);
  auto& reregistrations = prometheus::BuildCounter()
                              .Name("conclave_registration_reregistrations_total")
                              .Help("Times that an instance came back on another lease")
                              .Register(*registry);
  auto& repairs = prometheus::BuildCounter()
                      .Name("conclave_registration_repairs_total")
                      .Help("Times that an instance's key was deleted or changed by others")
                      .Register(*registry);
  series_.reset(new Series{
      .registry = std::move(registry),
      .registered = registered.Add({{"service", instance.service}, {"address", instance.address}}),
      .reregistrations = reregistrations.Add({{"service", instance.service}}),
      .repairs = repairs.Add({{"service", instance.service}})});
}

RegistrationMetrics::~RegistrationMetrics() {
  // Not removed from its family: another registration of the same labels would be left with a
  // gauge that is gone.
  if (series_ != nullptr) series_->registered.Set(0);
}

void RegistrationMetrics::OnEvent(const Registrar::Event& event) {
  if (series_ == nullptr) return;
  const bool registered = event.state == RegState::kRegistered ||
                          event.state == RegState::kDraining || event.state == RegState::kSuspect;
  series_->registered.Set(registered ? 1 : 0);
  series_->reregistrations.Increment(static_cast<double>(
      event.reregistrations - std::exchange(series_->reregistrations_seen, event.reregistrations)));
  series_->repairs.Increment(
      static_cast<double>(event.repairs - std::exchange(series_->repairs_seen, event.repairs)));
}

}  // namespace conclave
