// What a pick costs, and what a call on a picking channel costs beyond one on a bare channel.
//
//   --benchmark_filter=Pick      ns per pick: policy / backends, by 1 and 2 threads
//   --benchmark_filter=Prepare   ns to create a call and drop it: bare channel (0), or backends
//   --benchmark_filter=Call      us per unary call: time, and CPU of the thread that calls
//
// The registry is a server as in the tests (CONCLAVE_TEST_SERVER); backends are addresses of one
// gRPC server in this process, 127.x.y.z, each with its own connection.
#include <benchmark/benchmark.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/client/client.h"
#include "conclave/discovery/picking/channel.h"
#include "conclave/discovery/picking/pick_table.h"
#include "conclave/discovery/picking/published.h"
#include "conclave/tests/discovery/picking/echo_backend.h"
#include "conclave/tests/discovery/picking/echo_calls.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using picking::PickTable;

class FirstReady final : public picking::Picker {
 public:
  const picking::Backend* Pick(const picking::PickArgs&,
                               std::span<const picking::Backend* const> ready) override {
    return ready.front();
  }
};

picking::Policy PolicyOf(int number) {
  switch (number) {
    case 0:
    case 1:
      return picking::WeightedRoundRobin{};
    case 2:
      return picking::LeastRequest{};
    case 3:
      return picking::RingHash{.header = "x-user"};
    default:
      return std::make_shared<FirstReady>();
  }
}

constexpr const char* kNames[] = {"RoundRobin", "WeightedRoundRobin", "LeastRequest", "RingHash",
                                  "OwnPicker"};

// A table as the threads of a channel share it.
struct Shared {
  Shared(int number, int backends) : policy(PolicyOf(number)) {
    picking::Roster::Candidates candidates;
    std::vector<picking::HashRing::Member> members;
    for (int i = 0; i < backends; ++i) {
      const std::string address =
          "10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ":80";
      const double weight = number == 0 ? 1 : 1 + i % 5;
      candidates.backends.push_back(std::make_shared<picking::Backend>(
          Instance{.address = address}, weight, std::make_shared<picking::BackendLoad>()));
      candidates.ring_index.push_back(static_cast<uint32_t>(i));
      members.push_back({.name = address, .weight = weight});
    }
    published = std::make_unique<picking::Published<PickTable>>(
        std::make_unique<const PickTable>(&policy, &turns, std::move(candidates),
                                          std::make_shared<const picking::HashRing>(members)));
  }
  const picking::Policy policy;
  picking::TurnCounter turns;
  std::unique_ptr<picking::Published<PickTable>> published;
};

Shared& SharedOf(int number, int backends) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, std::unique_ptr<Shared>> all;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Shared>& shared = all[{number, backends}];
  if (shared == nullptr) shared = std::make_unique<Shared>(number, backends);
  return *shared;
}

// All of a pick but the look at the connection: the snapshot, random bits, the policy, the count of
// the call's begin and end.
void Pick(benchmark::State& state) {
  Shared& shared = SharedOf(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  Prng prng(static_cast<uint64_t>(state.thread_index()) + 1);
  // So many different keys that they are all over a ring.
  constexpr int kKeys = 4'096;
  std::vector<std::multimap<std::string, std::string>> metadata;
  for (int i = 0; i < kKeys; ++i) metadata.push_back({{"x-user", std::to_string(prng.Next())}});
  size_t n = 0;
  for (auto _ : state) {
    const auto table = shared.published->Read();
    const uint32_t index =
        table->Pick({.method = "/s/M", .random = prng.Next(), .metadata = &metadata[n++ % kKeys]});
    picking::BackendLoad& load = *table->backends()[index]->load();
    load.in_flight.fetch_add(1, std::memory_order_relaxed);
    load.picks.fetch_add(1, std::memory_order_relaxed);
    load.in_flight.fetch_sub(1, std::memory_order_relaxed);
  }
  state.SetLabel(kNames[state.range(0)]);
}
BENCHMARK(Pick)
    ->ArgsProduct({{0, 1, 2, 3, 4}, {10, 100, 1'000}})
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();

// The run that was disturbed least: for --benchmark_repetitions.
double Least(const std::vector<double>& runs) {
  return *std::min_element(runs.begin(), runs.end());
}

// A registry, a server, and channels to it.
class World {
 public:
  static World& Get() {
    static World world;
    return world;
  }
  // A picking channel with so many ready backends; 0: a bare channel to one.
  std::shared_ptr<grpc::ChannelInterface> ChannelTo(int backends, bool least = false) {
    std::shared_ptr<grpc::ChannelInterface>& channel = channels_[{backends, least}];
    if (channel != nullptr) return channel;
    if (backends == 0) {
      channel = grpc::CreateChannel("127.0.0.1:" + port_, grpc::InsecureChannelCredentials());
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(60));
      return channel;
    }
    const std::string service = "bench-" + std::to_string(backends);
    for (int i = 0; i < backends; ++i) {
      const std::string address =
          "127.1." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250) + ":" + port_;
      CONCLAVE_CHECK(client_
                         .Put(InstanceKey(service, address),
                              EncodeNamingValue({.service = service, .address = address}))
                         .ok(),
                     "put");
    }
    PickingOptions options;
    if (least) options.policy = picking::LeastRequest{};
    auto dialed = DialPicking(client_, service, grpc::InsecureChannelCredentials(), options);
    CONCLAVE_CHECK(dialed.ok(), "dial");
    channel = *std::move(dialed);
    const bool ready = testing::WaitFor(
        [&] {
          int count = 0;
          const picking::PickingStats stats = *ChannelStats(*channel);
          for (const auto& backend : stats.backends) {
            count += backend.state == picking::BackendState::kReady ? 1 : 0;
          }
          return count == backends;
        },
        absl::Seconds(120));
    CONCLAVE_CHECK(ready, "all backends are ready");
    return channel;
  }

 private:
  World()
      : cluster_(*testing::TestCluster::Start(
            testing::ServerUnderTest{.kind = testing::ServerKind::kConclave, .members = 1})),
        client_(*Client::Connect({.endpoints = cluster_->endpoints()})),
        backend_("0.0.0.0:0"),
        port_(backend_.address().substr(backend_.address().rfind(':') + 1)) {}

  const std::unique_ptr<testing::TestCluster> cluster_;
  Client client_;
  testing::EchoBackend backend_;
  const std::string port_;
  std::map<std::pair<int, bool>, std::shared_ptr<grpc::ChannelInterface>> channels_;
};

void Prepare(benchmark::State& state) {
  const auto channel = World::Get().ChannelTo(static_cast<int>(state.range(0)));
  const auto stub = testing::Echo::NewStub(channel);
  testing::Steps steps;
  for (auto _ : state) {
    grpc::ClientContext context;
    benchmark::DoNotOptimize(stub->PrepareAsyncUnary(&context, {}, steps.queue()));
  }
  state.SetLabel(state.range(0) == 0 ? "bare channel" : "picking channel");
}
BENCHMARK(Prepare)->ComputeStatistics("min", Least)->Arg(0)->Arg(1)->Arg(10)->Arg(100)->Arg(1'000);

// What it costs to ask a connection whether it is still up.
void LookAtState(benchmark::State& state) {
  const auto channel = World::Get().ChannelTo(0);
  for (auto _ : state) benchmark::DoNotOptimize(channel->GetState(false));
}
BENCHMARK(LookAtState);

void Call(benchmark::State& state) {
  const auto channel =
      World::Get().ChannelTo(static_cast<int>(state.range(0)), state.range(1) != 0);
  const auto stub = testing::Echo::NewStub(channel);
  testing::EchoRequest request;
  request.set_text("hello");
  testing::EchoReply reply;
  for (auto _ : state) {
    grpc::ClientContext context;
    CONCLAVE_CHECK(stub->Unary(&context, request, &reply).ok(), "call");
  }
  state.SetLabel(state.range(0) == 0   ? "bare channel"
                 : state.range(1) == 0 ? "picking channel"
                                       : "picking channel, least request");
}
BENCHMARK(Call)
    ->Args({0, 0})
    ->Args({1, 0})
    ->Args({1, 1})
    ->Args({100, 1})
    ->ComputeStatistics("min", Least)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace conclave
