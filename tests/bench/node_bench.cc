// What a turn costs: a single member with an instant log, a hundred calls at a time. The aim: 2 us
// a put, 1 us a linearizable get, from the call to its reply.
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

// Three members and a network that takes no time: what all of them together spend on a put.
class Cluster {
 public:
  Cluster() {
    std::vector<FoundingMember> founders;
    for (int i = 0; i < 3; ++i) {
      founders.push_back({"m" + std::to_string(i), {"http://10.0.0." + std::to_string(i)}});
    }
    const InitialCluster cluster = *FoundCluster(founders, "bench");
    for (int i = 0; i < 3; ++i) {
      Options options;
      options.name = founders[i].name;
      options.version = "3.5.0";
      options.seed = static_cast<uint64_t>(i) + 1;
      options.id = cluster.Find(options.name)->id;
      options.cluster_id = cluster.cluster_id;
      ids_[i] = options.id;
      nodes_[i] = std::make_unique<Node>(options, FoundingState(options, cluster), now_);
    }
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        if (i == j) continue;
        inputs_[i].push_back(PeerConnection{ids_[j], PeerLane::kMessages, true});
      }
    }
    while (Leader() < 0) {
      now_ += std::chrono::milliseconds(50);
      TurnAll();
    }
    for (int i = 0; i < 20; ++i) TurnAll();
  }

  int Leader() const {
    for (int i = 0; i < 3; ++i) {
      if (nodes_[i]->raft_status().is_leader) return i;
    }
    return -1;
  }
  void Add(int member, Method method, const std::string& request) {
    inputs_[member].push_back(UnaryCall{CallId(++call_), method, WithHeadroom(request)});
  }
  size_t TurnAll() {
    size_t answered = 0;
    for (int i = 0; i < 3; ++i) {
      effects_.Clear();
      turn_.clear();
      turn_.swap(inputs_[i]);
      nodes_[i]->Turn(now_, turn_, &effects_);
      if (effects_.append.has_value()) {
        inputs_[i].push_back(LogSynced{effects_.append->batch, {}});
      }
      for (PeerSend& send : effects_.peer_sends) {
        for (int to = 0; to < 3; ++to) {
          if (ids_[to] != send.to) continue;
          inputs_[to].push_back(PeerFrame{ids_[i], send.lane, std::move(send.frame)});
        }
      }
      answered += effects_.replies.size();
    }
    return answered;
  }
  void Pass(Duration time) { now_ += time; }

 private:
  Instant now_{};
  raft::NodeId ids_[3];
  std::unique_ptr<Node> nodes_[3];
  std::vector<Input> inputs_[3];
  std::vector<Input> turn_;
  Effects effects_;
  uint64_t call_ = 0;
};

void BM_ThreeMembers(benchmark::State& state) {
  Cluster cluster;
  const bool follower = state.range(0) == 1;
  const Method method = state.range(1) == 1 ? Method::kRange : Method::kPut;
  const std::string value = method == Method::kPut ? std::string(256, 'x') : std::string();
  std::vector<std::string> requests;
  for (int i = 0; i < 1000; ++i) requests.push_back(Encoded("key-" + std::to_string(i), value));
  const int member = follower ? (cluster.Leader() + 1) % 3 : cluster.Leader();
  size_t next = 0;
  size_t answered = 0;
  for (auto _ : state) {
    for (int i = 0; i < kCallsPerTurn; ++i) {
      cluster.Add(member, method, requests[next]);
      if (++next == requests.size()) next = 0;
    }
    // Forward, append, acknowledge, commit; nothing waits for anything but the next turn.
    answered += cluster.TurnAll();
    answered += cluster.TurnAll();
    cluster.Pass(std::chrono::microseconds(400));
  }
  state.SetItemsProcessed(static_cast<int64_t>(answered));
  state.counters["us_per_call"] =
      benchmark::Counter(static_cast<double>(answered) * 1e-6,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_ThreeMembers)
    ->ArgNames({"follower", "read"})
    ->Args({0, 0})
    ->Args({1, 0})
    ->Args({0, 1})
    ->Args({1, 1});

}  // namespace
}  // namespace conclave::node
