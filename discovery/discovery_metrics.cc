#include "conclave/discovery/discovery_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

namespace conclave {

ServiceMetrics::ServiceMetrics(const std::shared_ptr<prometheus::Registry>& registry,
                               const std::string& service)
    : registry_(registry) {
  if (registry_ == nullptr) return;
  const auto add = [&](auto builder, const char* name, const char* help) {
    return &builder.Name(name).Help(help).Register(*registry_).Add({{"service", service}});
  };
  const auto gauge = [&add](const char* name, const char* help) {
    return add(prometheus::BuildGauge(), name, help);
  };
  const auto counter = [&add](const char* name, const char* help) {
    return add(prometheus::BuildCounter(), name, help);
  };
  instances_ = gauge("conclave_discovery_instances", "Instances in the view of the service");
  skipped_ = gauge("conclave_discovery_skipped", "Entries of the service that cannot be read");
  held_ = gauge("conclave_discovery_held", "Instances that only the shrink guard keeps");
  stale_seconds_ = gauge("conclave_discovery_stale_seconds",
                         "How long the cluster has been out of reach; 0: it is not");
  updates_ = counter("conclave_discovery_updates_total", "Changes of the view");
  lists_ =
      counter("conclave_discovery_lists_total", "Lists of the whole service, the first included");
  holds_ = counter("conclave_discovery_guard_holds_total",
                   "Times that the shrink guard suspected a list");
  unreadable_ = counter("conclave_discovery_unreadable_total", "Values that could not be read");
  cache_writes_ = counter("conclave_discovery_cache_writes_total", "Sets written to disk");
  cache_failures_ = counter("conclave_discovery_cache_write_failures_total",
                            "Sets that could not be written to disk");
  endpoints_ = gauge("conclave_channel_endpoints", "Endpoints that channels were last told");
  left_out_ = gauge("conclave_channel_left_out", "Addresses that channels cannot use");
  endpoint_updates_ =
      counter("conclave_channel_updates_total", "Sets of endpoints told to channels");
}

void ServiceMetrics::SetInstances(int64_t instances, int64_t skipped, int64_t held) const {
  if (!enabled()) return;
  instances_->Set(static_cast<double>(instances));
  skipped_->Set(static_cast<double>(skipped));
  held_->Set(static_cast<double>(held));
}
void ServiceMetrics::SetStaleSeconds(double seconds) const {
  if (enabled()) stale_seconds_->Set(seconds);
}
void ServiceMetrics::CountUpdate() const {
  if (enabled()) updates_->Increment();
}
void ServiceMetrics::CountLists(int64_t more) const {
  if (enabled() && more > 0) lists_->Increment(static_cast<double>(more));
}
void ServiceMetrics::CountHolds(int64_t more) const {
  if (enabled() && more > 0) holds_->Increment(static_cast<double>(more));
}
void ServiceMetrics::CountUnreadable(int64_t more) const {
  if (enabled() && more > 0) unreadable_->Increment(static_cast<double>(more));
}
void ServiceMetrics::CountCacheWrite(bool ok) const {
  if (enabled()) (ok ? cache_writes_ : cache_failures_)->Increment();
}
void ServiceMetrics::CountEndpointUpdate(int64_t endpoints, int64_t left_out) const {
  if (!enabled()) return;
  endpoints_->Set(static_cast<double>(endpoints));
  left_out_->Set(static_cast<double>(left_out));
  endpoint_updates_->Increment();
}

}  // namespace conclave
