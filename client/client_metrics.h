// ClientMetrics: what a client counts in its user's registry. docs/client.md lists the names.
//
// Thread: OnCall any, the rest the engine's. Clients that share a registry share the series too:
// counters and histograms add up by nature, gauges because each client adds and takes away its own
// part, and takes all of it away when it ends.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/client/core/endpoint_pool.h"
#include "conclave/client/core/engine_observer.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace conclave {

class ClientMetrics : public EngineObserver {
 public:
  explicit ClientMetrics(std::shared_ptr<prometheus::Registry> registry);
  ~ClientMetrics() override;

  void OnCall(std::string_view method, absl::StatusCode code, Duration took) override;
  void OnRetry(std::string_view method) override;
  void OnRetryHeld() override;
  void OnFailover(std::string_view method) override;
  void OnStreamOpened(std::string_view method) override;
  void OnKeepAlive(Duration took) override;
  void OnSession(int alive, int suspect) override;
  void OnSessionLost() override;
  void OnWatches(size_t count) override;
  void OnEvents(size_t count) override;
  void OnResync() override;
  void OnNonsense(std::string_view what) override;

  // What is looked up from time to time.
  struct Sample {
    std::vector<EndpointPool::State> endpoints{};
    Instant now{};
    int64_t watch_lag = 0;       // revisions, of the watch that is furthest behind
    double watch_silence_s = 0;  // 0 without watches
    int backlog = 0;             // batches that wait for the callback thread
  };
  void OnSample(const Sample& sample);

 private:
  // A gauge that holds this client's part of a sum.
  class Part {
   public:
    explicit Part(prometheus::Gauge& gauge) : gauge_(&gauge) {}
    void Set(double value) {
      gauge_->Increment(value - value_);
      value_ = value;
    }

   private:
    prometheus::Gauge* gauge_;
    double value_ = 0;
  };
  struct OfMethod {
    std::map<absl::StatusCode, prometheus::Counter*> by_code{};
    prometheus::Histogram* seconds = nullptr;
  };
  using Counters = std::map<std::string, prometheus::Counter*, std::less<>>;

  prometheus::Counter& CounterOf(Counters& counters,
                                 prometheus::Family<prometheus::Counter>& family, const char* label,
                                 std::string_view value);
  prometheus::Counter& Single(const char* name, const char* help);
  Part Gauge(const char* name, const char* help, const std::map<std::string, std::string>& labels);

  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& calls_;
  prometheus::Family<prometheus::Histogram>& call_seconds_;
  prometheus::Family<prometheus::Counter>& retries_;
  prometheus::Family<prometheus::Counter>& failovers_;
  prometheus::Family<prometheus::Counter>& streams_;
  prometheus::Family<prometheus::Counter>& nonsense_;
  prometheus::Counter& held_;
  prometheus::Counter& events_;
  prometheus::Counter& resyncs_;
  prometheus::Counter& sessions_lost_;
  prometheus::Histogram& keepalive_seconds_;
  Part alive_;
  Part suspect_;
  Part watches_;
  Part watch_lag_;
  Part watch_silence_;
  Part backlog_;
  std::map<std::string, Part> endpoints_;
  Counters retries_of_;
  Counters failovers_of_;
  Counters streams_of_;
  Counters nonsense_of_;
  std::mutex mutex_;
  std::map<std::string, OfMethod, std::less<>> methods_;  // guarded by mutex_
};

}  // namespace conclave
