// ClaimMetrics: what one claim adds to the user's registry of metrics. docs/client.md lists the
// names.
//
// Series are told apart by the kind of claim, and for elections by their name as well: those are
// few, and "who leads what" is the question; names of locks may be without number. Series stay
// until the registry goes; all claims of a process share them.
//
// Thread-safe. Without a registry everything here does nothing.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "conclave/base/time.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace conclave {

class ClaimMetrics {
 public:
  ClaimMetrics(std::shared_ptr<prometheus::Registry> registry, std::string_view kind,
               std::string_view name);
  ~ClaimMetrics();  // it is not held any more
  ClaimMetrics(const ClaimMetrics&) = delete;
  ClaimMetrics& operator=(const ClaimMetrics&) = delete;

  void OnOwned(Duration waited);
  void OnBusy();  // a try that found somebody else
  void OnRefused(const absl::Status& why);
  void OnGivenUp();
  void OnLost();  // while it was held

 private:
  void CountOutcome(const char* outcome);
  bool Ended() { return held_.exchange(false); }

  struct Series;
  const std::unique_ptr<Series> series_;  // null: nothing is counted
  std::atomic<bool> held_ = false;
};

}  // namespace conclave
