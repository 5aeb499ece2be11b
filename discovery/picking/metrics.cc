#include "conclave/discovery/picking/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <atomic>
#include <set>
#include <utility>

namespace conclave::picking {
namespace {

std::string NextChannel() {
  static std::atomic<uint64_t> last = 0;
  return std::to_string(++last);
}

// Brings a counter up to a total that is counted elsewhere.
void RaiseTo(prometheus::Counter* counter, uint64_t total) {
  const double more = static_cast<double>(total) - counter->Value();
  if (more > 0) counter->Increment(more);
}

}  // namespace

Metrics::Metrics(std::shared_ptr<prometheus::Registry> registry, std::string service)
    : registry_(std::move(registry)), service_(std::move(service)), channel_(NextChannel()) {
  if (registry_ == nullptr) return;
  const auto counter = [this](const char* name, const char* help) {
    return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
  };
  const auto gauge = [this](const char* name, const char* help) {
    return &prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
  };
  picks_ = counter("conclave_picking_picks_total", "Calls given to the backend");
  failures_ =
      counter("conclave_picking_failures_total", "Calls on the backend whose end spoke against it");
  unrouted_ = counter("conclave_picking_unrouted_total",
                      "Calls that found no backend: waited for one, or were refused at once");
  in_flight_ = gauge("conclave_picking_in_flight", "Calls under way on the backend");
  ready_ = gauge("conclave_picking_ready", "1 if the backend's connection is ready");
  ejected_ = gauge("conclave_picking_ejected", "1 while the backend is ejected as an outlier");
  weight_ = gauge("conclave_picking_weight", "The backend's weight of the moment");
  const auto outcome = [this](const char* what) {
    return &unrouted_->Add({{"service", service_}, {"channel", channel_}, {"outcome", what}});
  };
  waited_ = outcome("waited");
  refused_ = outcome("refused");
}

Metrics::~Metrics() {
  if (registry_ == nullptr) return;
  for (const auto& [backend, row] : rows_) Remove(row);
  unrouted_->Remove(waited_);
  unrouted_->Remove(refused_);
}

std::map<std::string, std::string> Metrics::Labels(const std::string& backend) const {
  return {{"service", service_}, {"channel", channel_}, {"backend", backend}};
}

Metrics::Row Metrics::Add(const std::string& backend) {
  const std::map<std::string, std::string> labels = Labels(backend);
  return {.picks = &picks_->Add(labels),
          .failures = &failures_->Add(labels),
          .in_flight = &in_flight_->Add(labels),
          .ready = &ready_->Add(labels),
          .ejected = &ejected_->Add(labels),
          .weight = &weight_->Add(labels)};
}

void Metrics::Remove(const Row& row) {
  picks_->Remove(row.picks);
  failures_->Remove(row.failures);
  in_flight_->Remove(row.in_flight);
  ready_->Remove(row.ready);
  ejected_->Remove(row.ejected);
  weight_->Remove(row.weight);
}

void Metrics::Update(const PickingStats& stats) {
  if (registry_ == nullptr) return;
  RaiseTo(waited_, stats.waited);
  RaiseTo(refused_, stats.refused);
  std::set<std::string> there;
  for (const BackendStats& backend : stats.backends) {
    there.insert(backend.address);
    auto found = rows_.find(backend.address);
    if (found == rows_.end()) found = rows_.emplace(backend.address, Add(backend.address)).first;
    const Row& row = found->second;
    RaiseTo(row.picks, backend.picks);
    RaiseTo(row.failures, backend.failures);
    row.in_flight->Set(static_cast<double>(backend.in_flight));
    row.ready->Set(backend.state == BackendState::kReady ? 1 : 0);
    row.ejected->Set(backend.ejected_for.has_value() ? 1 : 0);
    row.weight->Set(backend.weight);
  }
  std::erase_if(rows_, [this, &there](const auto& entry) {
    if (there.contains(entry.first)) return false;
    Remove(entry.second);
    return true;
  });
}

}  // namespace conclave::picking
