// ServiceMetrics: what Discovery counts of one service, in the registry that the client was given.
//
// Without a registry everything here does nothing. Series are named by the service and stay until
// the registry goes; two Discoveries of one registry that watch the same service share them.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace prometheus {
class Counter;
class Gauge;
class Registry;
}  // namespace prometheus

namespace conclave {

class ServiceMetrics {
 public:
  ServiceMetrics(const std::shared_ptr<prometheus::Registry>& registry, const std::string& service);

  bool enabled() const { return registry_ != nullptr; }
  void SetInstances(int64_t instances, int64_t skipped, int64_t held) const;
  void SetStaleSeconds(double seconds) const;
  void CountUpdate() const;
  void CountLists(int64_t more) const;
  void CountHolds(int64_t more) const;
  void CountUnreadable(int64_t more) const;
  void CountCacheWrite(bool ok) const;
  void CountEndpointUpdate(int64_t endpoints, int64_t left_out) const;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;  // keeps what the pointers point to
  prometheus::Gauge* instances_ = nullptr;
  prometheus::Gauge* skipped_ = nullptr;
  prometheus::Gauge* held_ = nullptr;
  prometheus::Gauge* stale_seconds_ = nullptr;
  prometheus::Gauge* endpoints_ = nullptr;
  prometheus::Gauge* left_out_ = nullptr;
  prometheus::Counter* updates_ = nullptr;
  prometheus::Counter* lists_ = nullptr;
  prometheus::Counter* holds_ = nullptr;
  prometheus::Counter* unreadable_ = nullptr;
  prometheus::Counter* cache_writes_ = nullptr;
  prometheus::Counter* cache_failures_ = nullptr;
  prometheus::Counter* endpoint_updates_ = nullptr;
};

}  // namespace conclave
