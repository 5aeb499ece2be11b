// Metrics: the stats of one picking channel in the registry of metrics that the client was given.
//
// Series are named by the service, the backend, and a number of the channel within the process,
// because two channels may go to one service. Those of a backend go when it leaves, all of them
// with the channel. Without a registry everything here does nothing.
//
// Thread: the hub's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "conclave/discovery/picking/stats.h"

namespace prometheus {
class Counter;
class Gauge;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace conclave::picking {

class Metrics {
 public:
  Metrics(std::shared_ptr<prometheus::Registry> registry, std::string service);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  bool enabled() const { return registry_ != nullptr; }
  void Update(const PickingStats& stats);

 private:
  struct Row {
    prometheus::Counter* picks = nullptr;
    prometheus::Counter* failures = nullptr;
    prometheus::Gauge* in_flight = nullptr;
    prometheus::Gauge* ready = nullptr;
    prometheus::Gauge* ejected = nullptr;
    prometheus::Gauge* weight = nullptr;
  };

  std::map<std::string, std::string> Labels(const std::string& backend) const;
  Row Add(const std::string& backend);
  void Remove(const Row& row);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::string service_;
  const std::string channel_;
  prometheus::Family<prometheus::Counter>* picks_ = nullptr;
  prometheus::Family<prometheus::Counter>* failures_ = nullptr;
  prometheus::Family<prometheus::Counter>* unrouted_ = nullptr;
  prometheus::Family<prometheus::Gauge>* in_flight_ = nullptr;
  prometheus::Family<prometheus::Gauge>* ready_ = nullptr;
  prometheus::Family<prometheus::Gauge>* ejected_ = nullptr;
  prometheus::Family<prometheus::Gauge>* weight_ = nullptr;
  prometheus::Counter* waited_ = nullptr;
  prometheus::Counter* refused_ = nullptr;
  std::map<std::string, Row> rows_;  // by the backend's address
};

}  // namespace conclave::picking
