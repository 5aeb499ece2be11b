#include "conclave/client/client_metrics.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"

namespace conclave {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

const prometheus::Histogram::BucketBoundaries& Buckets() {
  static const auto& buckets = *new prometheus::Histogram::BucketBoundaries{
      0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
      0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
  return buckets;
}

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// "/etcdserverpb.KV/Put" -> "KV/Put".
std::string_view ShortName(std::string_view method) {
  const size_t dot = method.find('.');
  return dot == std::string_view::npos ? method : method.substr(dot + 1);
}

}  // namespace

ClientMetrics::ClientMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      calls_(BuildCounter()
                 .Name("conclave_client_calls_total")
                 .Help("Calls that ended, after all their attempts")
                 .Register(*registry_)),
      call_seconds_(BuildHistogram()
                        .Name("conclave_client_call_seconds")
                        .Help("From the call to its end, all attempts included")
                        .Register(*registry_)),
      retries_(BuildCounter()
                   .Name("conclave_client_retries_total")
                   .Help("Attempts beyond the first")
                   .Register(*registry_)),
      failovers_(BuildCounter()
                     .Name("conclave_client_failovers_total")
                     .Help("Times that a call or a stream left a member")
                     .Register(*registry_)),
      streams_(BuildCounter()
                   .Name("conclave_client_streams_opened_total")
                   .Help("Streams for watches and for renewals, the first and every resumed one")
                   .Register(*registry_)),
      nonsense_(BuildCounter()
                    .Name("conclave_client_nonsense_total")
                    .Help("Answers that no server of the protocol gives")
                    .Register(*registry_)),
      held_(
          Single("conclave_client_retries_held_total", "Retries that had to wait for the budget")),
      events_(Single("conclave_client_watch_events_total", "Events received by watches")),
      resyncs_(Single("conclave_client_watch_resyncs_total",
                      "Lists made by watches: at first, and after a compaction")),
      sessions_lost_(Single("conclave_client_sessions_lost_total",
                            "Sessions that were lost, not those that were closed")),
      keepalive_seconds_(BuildHistogram()
                             .Name("conclave_client_keepalive_seconds")
                             .Help("From the sending of a renewal to its answer")
                             .Register(*registry_)
                             .Add({}, Buckets())),
      alive_(Gauge("conclave_client_sessions", "Sessions by health", {{"health", "alive"}})),
      suspect_(Gauge("conclave_client_sessions", "Sessions by health", {{"health", "suspect"}})),
      watches_(Gauge("conclave_client_watches", "Watches", {})),
      watch_lag_(Gauge("conclave_client_watch_lag_revisions",
                       "How far the watch that is furthest behind is known to be", {})),
      watch_silence_(Gauge("conclave_client_watch_silence_seconds",
                           "Since the watch stream last said anything", {})),
      backlog_(Gauge("conclave_client_callback_backlog",
                     "Batches of watches that wait for the callback thread", {})) {}

ClientMetrics::~ClientMetrics() {
  for (Part* part : {&alive_, &suspect_, &watches_, &watch_lag_, &watch_silence_, &backlog_}) {
    part->Set(0);
  }
  for (auto& [name, part] : endpoints_) part.Set(0);
}

prometheus::Counter& ClientMetrics::Single(const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(*registry_).Add({});
}

ClientMetrics::Part ClientMetrics::Gauge(const char* name, const char* help,
                                         const std::map<std::string, std::string>& labels) {
  return Part(BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels));
}

prometheus::Counter& ClientMetrics::CounterOf(Counters& counters,
                                              prometheus::Family<prometheus::Counter>& family,
                                              const char* label, std::string_view value) {
  auto found = counters.find(value);
  if (found == counters.end()) {
    found = counters.emplace(std::string(value), &family.Add({{label, std::string(value)}})).first;
  }
  return *found->second;
}

void ClientMetrics::OnCall(std::string_view method, absl::StatusCode code, Duration took) {
  const std::string_view name = ShortName(method);
  prometheus::Counter* counter = nullptr;
  prometheus::Histogram* seconds = nullptr;
  {
    std::lock_guard lock(mutex_);
    auto found = methods_.find(name);
    if (found == methods_.end()) {
      found = methods_.emplace(std::string(name), OfMethod{}).first;
      found->second.seconds = &call_seconds_.Add({{"method", std::string(name)}}, Buckets());
    }
    seconds = found->second.seconds;
    prometheus::Counter*& slot = found->second.by_code[code];
    if (slot == nullptr) {
      slot = &calls_.Add({{"method", std::string(name)}, {"code", absl::StatusCodeToString(code)}});
    }
    counter = slot;
  }
  counter->Increment();
  seconds->Observe(Seconds(took));
}

void ClientMetrics::OnRetry(std::string_view method) {
  CounterOf(retries_of_, retries_, "method", ShortName(method)).Increment();
}

void ClientMetrics::OnRetryHeld() { held_.Increment(); }

void ClientMetrics::OnFailover(std::string_view method) {
  CounterOf(failovers_of_, failovers_, "method", ShortName(method)).Increment();
}

void ClientMetrics::OnStreamOpened(std::string_view method) {
  CounterOf(streams_of_, streams_, "method", ShortName(method)).Increment();
}

void ClientMetrics::OnKeepAlive(Duration took) { keepalive_seconds_.Observe(Seconds(took)); }

void ClientMetrics::OnSession(int alive, int suspect) {
  alive_.Set(alive);
  suspect_.Set(suspect);
}

void ClientMetrics::OnSessionLost() { sessions_lost_.Increment(); }

void ClientMetrics::OnWatches(size_t count) { watches_.Set(static_cast<double>(count)); }

void ClientMetrics::OnEvents(size_t count) { events_.Increment(static_cast<double>(count)); }

void ClientMetrics::OnResync() { resyncs_.Increment(); }

void ClientMetrics::OnNonsense(std::string_view what) {
  CounterOf(nonsense_of_, nonsense_, "what", what).Increment();
}

void ClientMetrics::OnSample(const Sample& sample) {
  watch_lag_.Set(static_cast<double>(sample.watch_lag));
  watch_silence_.Set(sample.watch_silence_s);
  backlog_.Set(sample.backlog);
  for (auto known = endpoints_.begin(); known != endpoints_.end();) {
    const bool stays = std::any_of(
        sample.endpoints.begin(), sample.endpoints.end(),
        [&known](const EndpointPool::State& state) { return state.name == known->first; });
    if (!stays) known->second.Set(0);
    known = stays ? std::next(known) : endpoints_.erase(known);
  }
  for (const EndpointPool::State& state : sample.endpoints) {
    auto found = endpoints_.find(state.name);
    if (found == endpoints_.end()) {
      found = endpoints_
                  .emplace(state.name, Gauge("conclave_client_endpoint_healthy",
                                             "1 for each client that uses it and is answered by it",
                                             {{"endpoint", state.name}}))
                  .first;
    }
    found->second.Set(state.shunned_until <= sample.now ? 1 : 0);
  }
}

}  // namespace conclave
