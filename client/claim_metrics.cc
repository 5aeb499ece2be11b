#include "conclave/client/claim_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <utility>

namespace conclave {
namespace {

const prometheus::Histogram::BucketBoundaries& WaitBuckets() {
  static const auto& buckets = *new prometheus::Histogram::BucketBoundaries{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
  return buckets;
}

}  // namespace

struct ClaimMetrics::Series {
  std::shared_ptr<prometheus::Registry> registry;
  std::map<std::string, std::string> labels;
  prometheus::Family<prometheus::Counter>& claims;
  prometheus::Gauge& held;
  prometheus::Counter& lost;
  prometheus::Histogram& wait_seconds;

  static std::unique_ptr<Series> Make(std::shared_ptr<prometheus::Registry> registry,
                                      std::map<std::string, std::string> labels) {
    if (registry == nullptr) return nullptr;
    prometheus::Registry& of = *registry;
    auto& claims = prometheus::BuildCounter()
                       .Name("conclave_claims_total")
                       .Help("Locks and leaderships that were asked for, by what came of it")
                       .Register(of);
    auto& held = prometheus::BuildGauge()
                     .Name("conclave_claims_held")
                     .Help("Locks and leaderships that this process has")
                     .Register(of)
                     .Add(labels);
    auto& lost = prometheus::BuildCounter()
                     .Name("conclave_claims_lost_total")
                     .Help("Locks and leaderships that ended without being given up")
                     .Register(of)
                     .Add(labels);
    auto& wait_seconds = prometheus::BuildHistogram()
                             .Name("conclave_claim_wait_seconds")
                             .Help("From asking for a lock or a leadership to having it")
                             .Register(of)
                             .Add(labels, WaitBuckets());
    return std::unique_ptr<Series>(
        new Series{std::move(registry), std::move(labels), claims, held, lost, wait_seconds});
  }
};

ClaimMetrics::ClaimMetrics(std::shared_ptr<prometheus::Registry> registry, std::string_view kind,
                           std::string_view name)
    : series_(Series::Make(std::move(registry),
                           {{"kind", std::string(kind)}, {"name", std::string(name)}})) {}

ClaimMetrics::~ClaimMetrics() { OnGivenUp(); }

void ClaimMetrics::CountOutcome(const char* outcome) {
  std::map<std::string, std::string> labels = series_->labels;
  labels["outcome"] = outcome;
  series_->claims.Add(labels).Increment();
}

void ClaimMetrics::OnOwned(Duration waited) {
  if (series_ == nullptr) return;
  held_ = true;
  series_->held.Increment();
  series_->wait_seconds.Observe(std::chrono::duration<double>(waited).count());
  CountOutcome("acquired");
}

void ClaimMetrics::OnBusy() {
  if (series_ != nullptr) CountOutcome("busy");
}

void ClaimMetrics::OnRefused(const absl::Status& why) {
  if (series_ == nullptr) return;
  CountOutcome(absl::IsDeadlineExceeded(why) ? "timeout"
               : absl::IsCancelled(why)      ? "cancelled"
               : absl::IsAborted(why)        ? "lost"
                                             : "failed");
}

void ClaimMetrics::OnGivenUp() {
  if (series_ != nullptr && Ended()) series_->held.Decrement();
}

void ClaimMetrics::OnLost() {
  if (series_ == nullptr || !Ended()) return;
  series_->held.Decrement();
  series_->lost.Increment();
}

}  // namespace conclave
