// What a Put costs the process that makes it: this library's client against a bare stub of gRPC's,
// blocking calls, with the same channel arguments, against the same server, in turn.
//
//   client_bench [--endpoint HOST:PORT] [--seconds S] [--rounds N]
//
// Without an endpoint it starts a server of its own (TestCluster). CPU is user and system time of
// this process (getrusage); each row is the median of its rounds.
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

constexpr size_t kValueBytes = 128;

double CpuSeconds(long& switches) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  switches = usage.ru_nvcsw;
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// One Put; false ends the program.
using PutFunction = std::function<bool(const std::string& key, const std::string& value)>;

struct Cost {
  double cpu_us = 0;  // per call
  double latency_us = 0;
  double switches = 0;  // times that a thread went to sleep, per call
};

Cost Measure(const PutFunction& put, int threads, absl::Duration duration) {
  const std::string value(kValueBytes, 'v');
  std::atomic<int64_t> calls = 0;
  std::vector<std::thread> callers;
  const absl::Time start = absl::Now();
  const absl::Time end = start + duration;
  long switches = 0;
  const double cpu = CpuSeconds(switches);
  for (int i = 0; i < threads; ++i) {
    callers.emplace_back([&, i] {
      const std::string key = "bench/" + std::to_string(i);
      int64_t mine = 0;
      for (; absl::Now() < end; ++mine) {
        if (put(key, value)) continue;
        std::fprintf(stderr, "a put failed\n");
        std::exit(1);
      }
      calls += mine;
    });
  }
  for (std::thread& caller : callers) caller.join();
  const double count = static_cast<double>(std::max<int64_t>(1, calls));
  long switches_after = 0;
  return {.cpu_us = (CpuSeconds(switches_after) - cpu) * 1e6 / count,
          .latency_us = absl::ToDoubleMicroseconds(absl::Now() - start) * threads / count,
          .switches = static_cast<double>(switches_after - switches) / count};
}

Cost Median(std::vector<Cost> costs) {
  std::sort(costs.begin(), costs.end(),
            [](const Cost& a, const Cost& b) { return a.cpu_us < b.cpu_us; });
  return costs[costs.size() / 2];
}

PutFunction BareStub(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3'000);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetMaxReceiveMessageSize(-1);
  args.SetMaxSendMessageSize(-1);
  std::shared_ptr<etcdserverpb::KV::Stub> stub = etcdserverpb::KV::NewStub(
      grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args));
  return [stub](const std::string& key, const std::string& value) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    context.AddMetadata("hasleader", "true");
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    etcdserverpb::PutResponse response;
    return stub->Put(&context, request, &response).ok();
  };
}

int Run(std::string endpoint, absl::Duration duration, int rounds) {
  std::unique_ptr<testing::TestCluster> cluster;
  if (endpoint.empty()) {
    auto started = testing::TestCluster::Start(
        testing::ServerUnderTest{.kind = testing::ServerKind::kConclave, .members = 1});
    if (!started.ok()) {
      std::fprintf(stderr, "%s\n", started.status().ToString().c_str());
      return 1;
    }
    cluster = *std::move(started);
    endpoint = cluster->endpoint(0);
  }
  auto client = Client::Connect({.endpoints = {endpoint}});
  if (!client.ok()) return 1;
  const PutFunction ours = [&client](const std::string& key, const std::string& value) {
    return client->Put(key, value).ok();
  };
  const PutFunction stub_put = BareStub(endpoint);
  if (!ours("bench/warm", "1") || !stub_put("bench/warm", "1")) return 1;
  std::printf("%8s %22s %22s %8s %26s %26s\n", "threads", "bare stub, CPU us/Put",
              "client, CPU us/Put", "ratio", "latency us, bare / client",
              "sleeps/Put, bare / client");
  for (const int threads : {1, 16}) {
    std::vector<Cost> of_bare, of_ours;
    for (int round = 0; round < rounds; ++round) {
      of_bare.push_back(Measure(stub_put, threads, duration));
      of_ours.push_back(Measure(ours, threads, duration));
    }
    const Cost stub = Median(of_bare), client_cost = Median(of_ours);
    std::printf("%8d %22.1f %22.1f %8.2f %16.0f / %-8.0f %14.1f / %.1f\n", threads, stub.cpu_us,
                client_cost.cpu_us, client_cost.cpu_us / stub.cpu_us, stub.latency_us,
                client_cost.latency_us, stub.switches, client_cost.switches);
  }
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
  std::string endpoint;
  double seconds = 2;
  int rounds = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (flag == "--endpoint") endpoint = argv[i + 1];
    if (flag == "--seconds") seconds = std::atof(argv[i + 1]);
    if (flag == "--rounds") rounds = std::max(1, std::atoi(argv[i + 1]));
  }
  return conclave::Run(endpoint, absl::Seconds(seconds), rounds);
}
