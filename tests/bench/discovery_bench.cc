// What a view of 10,000 instances costs: memory, and the time from a put until a watcher's snapshot
// has it. Against a real server: --endpoints (default: a cluster of its own, as the tests start
// it).
//
//   discovery_bench [--instances 10000] [--updates 50] [--endpoints host:port]
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

constexpr std::string_view kService = "bench";
constexpr int kPutsPerTxn = 100;

long ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  long total = 0;
  long resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

Instance Make(int i, int64_t weight) {
  return {.service = std::string(kService),
          .id = "instance-" + std::to_string(i),
          .address = "10." + std::to_string(i / 62500) + "." + std::to_string(i / 250 % 250) + "." +
                     std::to_string(1 + i % 250) + ":8080",
          .version = "1.4.2",
          .zone = "eu-1a",
          .weight = weight,
          .tags = {"stable"},
          .attrs = {{"proto", "h2"}}};
}

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "discovery_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

void Fill(const Client& client, int instances) {
  for (int begin = 0; begin < instances;) {
    TxnRequest request;
    for (int i = 0; i < kPutsPerTxn && begin < instances; ++i, ++begin) {
      const Instance instance = Make(begin, 100);
      request.success.push_back(PutRequest{.key = InstanceKey(kService, instance.address),
                                           .value = EncodeNamingValue(instance)});
    }
    if (const auto done = client.Commit(request); !done.ok()) Fail(done.status());
  }
}

void Run(const std::vector<std::string>& endpoints, int instances, int updates) {
  auto writer = Client::Connect({.endpoints = endpoints});
  auto reader = Client::Connect({.endpoints = endpoints});
  if (!writer.ok()) Fail(writer.status());
  if (!reader.ok()) Fail(reader.status());
  Fill(*writer, instances);
  if (const auto warm = reader->Get("x"); !warm.ok()) Fail(warm.status());
  malloc_trim(0);
  const long before = ResidentBytes();

  Discovery discovery(*reader);
  auto service = discovery.Watch(kService);
  if (!service.ok()) Fail(service.status());
  const absl::Time begun = absl::Now();
  const auto full = service->Wait(
      [&](const Snapshot& now) { return now.instances().size() == static_cast<size_t>(instances); },
      {.timeout = absl::Minutes(1)});
  if (!full.ok()) Fail(full.status());
  std::printf("first snapshot of %d instances: %.1f ms\n", instances,
              absl::ToDoubleMilliseconds(absl::Now() - begun));
  // The snapshot is there before the list that it was made of has gone.
  std::promise<void> delivered;
  reader->RunOnCallbackThread([&delivered] { delivered.set_value(); });
  delivered.get_future().wait();
  const long peak = ResidentBytes();
  malloc_trim(0);
  const long after = ResidentBytes();
  std::printf("memory per instance: %ld bytes kept, %ld with what the list left in the heap\n",
              (after - before) / instances, (peak - before) / instances);

  std::vector<double> took_ms;
  std::vector<double> put_ms;
  for (int i = 0; i < updates; ++i) {
    const Instance instance = Make(i * 37 % instances, 1000 + i);
    const std::string key = InstanceKey(kService, instance.address);
    const absl::Time start = absl::Now();
    const auto put = writer->Put(key, EncodeNamingValue(instance));
    if (!put.ok()) Fail(put.status());
    put_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
    const auto seen =
        service->Wait([&](const Snapshot& now) { return now.revision() >= put->revision; },
                      {.timeout = absl::Seconds(10)});
    if (!seen.ok()) Fail(seen.status());
    took_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  std::sort(took_ms.begin(), took_ms.end());
  std::sort(put_ms.begin(), put_ms.end());
  std::printf(
      "from the begin of a put to the snapshot that has it: median %.2f ms, worst %.2f ms of %d "
      "(the put alone: median %.2f ms)\n",
      took_ms[took_ms.size() / 2], took_ms.back(), updates, put_ms[put_ms.size() / 2]);

  constexpr int kReads = 1'000'000;
  SnapshotReader fast(*service);
  size_t sum = 0;
  absl::Time start = absl::Now();
  for (int i = 0; i < kReads; ++i) sum += fast.Read().instances().size();
  const double fast_ns = absl::ToDoubleNanoseconds(absl::Now() - start) / kReads;
  start = absl::Now();
  for (int i = 0; i < kReads; ++i) sum += service->snapshot()->instances().size();
  const double slow_ns = absl::ToDoubleNanoseconds(absl::Now() - start) / kReads;
  std::printf("one read: SnapshotReader %.1f ns, snapshot() %.1f ns%s\n", fast_ns, slow_ns,
              sum == 0 ? " (empty)" : "");
}

int Main(int argc, char** argv) {
  int instances = 10'000;
  int updates = 50;
  std::vector<std::string> endpoints;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (flag == "--instances") instances = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--updates") updates = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--endpoints") endpoints.emplace_back(argv[i + 1]);
  }
  std::unique_ptr<testing::TestCluster> cluster;
  if (endpoints.empty()) {
    auto started = testing::TestCluster::Start(
        testing::ServerUnderTest{.kind = testing::ServerKind::kConclave});
    if (!started.ok()) Fail(started.status());
    cluster = *std::move(started);
    endpoints = cluster->endpoints();
  }
  Run(endpoints, instances, updates);
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) { return conclave::Main(argc, argv); }
