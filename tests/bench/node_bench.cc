// What a turn costs: a single member with an instant log, a hundred calls at a time. The aim: 2 us a put, 1 us a
// linearizable get, from the call to its reply.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/node.h"
#include "conclave/tests/node/request.h"

namespace conclave::node {
namespace {

constexpr int kCallsPerTurn = 100;

// Field 1 and, if there is one, field 2 of a request.
std::string Encoded(const std::string& key, const std::string& value) {
  const auto field = [](char tag, const std::string& text) {
    std::string out(1, tag);
    size_t size = text.size();
    for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
    out.push_back(static_cast<char>(size));
    return out + text;
  };
  return field('\x0a', key) + (value.empty() ? std::string() : field('\x12', value));
}

class Member {
 public:
  Member() {
    Options options;
    options.name = "bench";
    options.version = "3.5.0";
    options.seed = 1;
    const FoundingMember founder{options.name, {"http://127.0.0.1:2380"}};
    const InitialCluster cluster = *FoundCluster({&founder, 1}, "token");
    options.id = cluster.members[0].id;
    options.cluster_id = cluster.cluster_id;
    node_ = std::make_unique<Node>(options, FoundingState(options, cluster), now_);
    for (int i = 0; i < 10; ++i) Turn();
  }

  void Add(Method method, const std::string& request) {
    inputs_.push_back(UnaryCall{CallId(++call_), method, WithHeadroom(request)});
  }
  void Open(uint64_t stream) {
    inputs_.push_back(StreamOpened{CallId(stream), StreamKind::kLeaseKeepAlive, false});
  }
  void Say(uint64_t stream, const std::string& request) {
    inputs_.push_back(StreamMessage{CallId(stream), Bytes::Copy(request)});
  }
  // Gives the number of answers.
  size_t Turn() {
    effects_.Clear();
    node_->Turn(now_, inputs_, &effects_);
    inputs_.clear();
    if (effects_.append.has_value()) inputs_.push_back(LogSynced{effects_.append->batch, {}});
    return effects_.replies.size() + effects_.streams.size();
  }
  void Pass(Duration time) { now_ += time; }

 private:
  Instant now_{};
  std::unique_ptr<Node> node_;
  std::vector<Input> inputs_;
  Effects effects_;
  uint64_t call_ = 0;
};

void BM_Puts(benchmark::State& state) {
  Member member;
  const std::string value(256, 'x');
  const auto keys = static_cast<uint64_t>(state.range(0));
  std::vector<std::string> requests;
  for (uint64_t i = 0; i < std::min<uint64_t>(keys, 100'000); ++i) {
    requests.push_back(Encoded("key-" + std::to_string(i * 7919 % keys), value));
  }
  size_t next = 0;
  size_t answered = 0;
  for (auto _ : state) {
    for (int i = 0; i < kCallsPerTurn; ++i) {
      member.Add(Method::kPut, requests[next]);
      if (++next == requests.size()) next = 0;
    }
    answered += member.Turn();
    answered += member.Turn();
    member.Pass(std::chrono::microseconds(200));
  }
  state.SetItemsProcessed(static_cast<int64_t>(answered));
  state.counters["us_per_put"] =
      benchmark::Counter(static_cast<double>(answered) * 1e-6,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Puts)->Arg(1)->Arg(1'000)->Arg(100'000);

void BM_Gets(benchmark::State& state) {
  Member member;
  const std::string value(256, 'x');
  const int keys = static_cast<int>(state.range(0));
  std::vector<std::string> requests;
  for (int i = 0; i < keys; ++i) {
    const std::string key = "key-" + std::to_string(i);
    member.Add(Method::kPut, Encoded(key, value));
    requests.push_back(Encoded(key, ""));
  }
  for (int i = 0; i < 10; ++i) member.Turn();
  size_t next = 0;
  size_t answered = 0;
  for (auto _ : state) {
    for (int i = 0; i < kCallsPerTurn; ++i) {
      member.Add(Method::kRange, requests[next]);
      if (++next == requests.size()) next = 0;
    }
    answered += member.Turn();
  }
  state.SetItemsProcessed(static_cast<int64_t>(answered));
  state.counters["us_per_get"] =
      benchmark::Counter(static_cast<double>(answered) * 1e-6,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Gets)->Arg(1)->Arg(10'000);

void BM_KeepAlives(benchmark::State& state) {
  Member member;
  // TTL 60 (field 1), ID 7 (field 2); the keep-alive has the id as field 1.
  member.Add(Method::kLeaseGrant, std::string("\x08\x3c\x10\x07"));
  member.Open(1'000'000'000);
  for (int i = 0; i < 10; ++i) member.Turn();
  size_t answered = 0;
  for (auto _ : state) {
    for (int i = 0; i < kCallsPerTurn; ++i) member.Say(1'000'000'000, std::string("\x08\x07"));
    answered += member.Turn();
  }
  state.SetItemsProcessed(static_cast<int64_t>(answered));
  state.counters["us_per_keep_alive"] =
      benchmark::Counter(static_cast<double>(answered) * 1e-6,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_KeepAlives);

}  // namespace
}  // namespace conclave::node
