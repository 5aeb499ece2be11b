// What a client counts, what it says about its watches' lag, and how many threads it holds.
#include <dirent.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/client/client.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"
#include "prometheus/registry.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Collector;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

// "name{label=value,...}" -> value; of a histogram the number of observations.
std::map<std::string, double> Read(const prometheus::Registry& registry) {
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : registry.Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      std::string name = family.name;
      std::string labels;
      for (const auto& label : metric.label) {
        labels += (labels.empty() ? "" : ",") + label.name + "=" + label.value;
      }
      if (!labels.empty()) name += "{" + labels + "}";
      values[name] = family.type == prometheus::MetricType::Histogram
                         ? static_cast<double>(metric.histogram.sample_count)
                     : family.type == prometheus::MetricType::Gauge ? metric.gauge.value
                                                                    : metric.counter.value;
    }
  }
  return values;
}

class MetricsTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(MetricsTest, CallsWatchesAndSessionsAreCounted) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto registry = std::make_shared<prometheus::Registry>();
  auto client = Client::Connect({.endpoints = {cluster->endpoint(0)}, .metrics = registry});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->Put("k", "1").ok());
  ASSERT_TRUE(client->Put("k", "2").ok());
  EXPECT_EQ(client->Put("k", "3", {.lease = 12345}).status().code(), absl::StatusCode::kNotFound);
  Collector seen;
  Watch watch = client->Watch("k", {.list_first = true}, seen.Callback());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(client->Put("k", "4").ok());
  ASSERT_TRUE(seen.WaitForEvents(1));
  EXPECT_TRUE(WaitFor([&] { return Read(*registry)["conclave_client_keepalive_seconds"] >= 1; }));
  auto values = Read(*registry);
  EXPECT_EQ((values["conclave_client_calls_total{code=OK,method=KV/Put}"]), 3);
  EXPECT_EQ((values["conclave_client_calls_total{code=NOT_FOUND,method=KV/Put}"]), 1);
  EXPECT_EQ((values["conclave_client_call_seconds{method=KV/Put}"]), 4);
  EXPECT_EQ(values["conclave_client_watches"], 1);
  EXPECT_EQ(values["conclave_client_watch_events_total"], 1);
  EXPECT_EQ(values["conclave_client_watch_resyncs_total"], 1);
  EXPECT_EQ((values["conclave_client_sessions{health=alive}"]), 1);
  EXPECT_EQ((values["conclave_client_streams_opened_total{method=Watch/Watch}"]), 1);
  const std::string healthy =
      "conclave_client_endpoint_healthy{endpoint=" + cluster->endpoint(0) + "}";
  EXPECT_TRUE(WaitFor([&] { return Read(*registry)[healthy] == 1; }));

  ASSERT_TRUE(client->Revoke(session->lease_id()).ok());
  EXPECT_TRUE(WaitFor([&] { return Read(*registry)["conclave_client_sessions_lost_total"] == 1; }));
  EXPECT_EQ((Read(*registry)["conclave_client_sessions{health=alive}"]), 0);
  cluster->Kill(0);
  EXPECT_TRUE(WaitFor([&] { return Read(*registry)[healthy] == 0; }));
  EXPECT_FALSE(client->Get("k", {}, {.timeout = absl::Seconds(1)}).ok());
  values = Read(*registry);
  EXPECT_GT((values["conclave_client_retries_total{method=KV/Range}"]), 0);
  EXPECT_GT((values["conclave_client_failovers_total{method=KV/Range}"]), 0);
}

TEST_P(MetricsTest, ClientsThatShareARegistryAddUpAndTakeTheirPartAlongWhenTheyEnd) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto registry = std::make_shared<prometheus::Registry>();
  auto one = Client::Connect({.endpoints = {cluster->endpoint(0)}, .metrics = registry});
  ASSERT_TRUE(one.ok());
  Watch watch = one->Watch("k", {}, [](const WatchBatch&) {});
  {
    auto two = Client::Connect({.endpoints = {cluster->endpoint(0)}, .metrics = registry});
    ASSERT_TRUE(two.ok());
    Watch other = two->Watch("k", {}, [](const WatchBatch&) {});
    EXPECT_TRUE(WaitFor([&] { return Read(*registry)["conclave_client_watches"] == 2; }));
  }
  EXPECT_TRUE(WaitFor([&] { return Read(*registry)["conclave_client_watches"] == 1; }));
}

TEST_P(MetricsTest, ALagShowsABlockedCallbackAndAnOutage) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = {cluster->endpoint(0)}});
  ASSERT_TRUE(client.ok());
  absl::Notification release;
  absl::Notification running;
  Watch watch = client->Watch("k", {}, [&](const WatchBatch& batch) {
    if (batch.events.empty()) return;
    if (!running.HasBeenNotified()) running.Notify();
    release.WaitForNotification();
  });
  ASSERT_TRUE(WaitFor([&] { return watch.lag().connected; }));
  EXPECT_EQ(watch.lag().revisions(), 0);
  int64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    auto put = client->Put("k", std::to_string(i));
    ASSERT_TRUE(put.ok()) << put.status();
    last = put->revision;
  }
  running.WaitForNotification();
  EXPECT_TRUE(WaitFor([&] { return watch.lag().received == last; }));
  EXPECT_GE(watch.lag().revisions(), 5);
  EXPECT_EQ(watch.lag().newest, last);
  release.Notify();
  EXPECT_TRUE(WaitFor([&] { return watch.lag().revisions() == 0; }));
  EXPECT_EQ(watch.lag().delivered, last);
  cluster->Kill(0);
  EXPECT_TRUE(WaitFor([&] { return !watch.lag().connected; }));
  const absl::Duration silence = watch.lag().silence;
  EXPECT_TRUE(WaitFor([&] { return watch.lag().silence > silence + absl::Milliseconds(100); }));
}

INSTANTIATE_TEST_SUITE_P(Servers, MetricsTest, ::testing::ValuesIn(SingleServers()), ServerName);

// ---- Threads
// ---------------------------------------------------------------------------------------

struct Threads {
  int all = 0;
  int ours = 0;  // by their names
};

Threads CountThreads() {
  Threads threads;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    ++threads.all;
    std::ifstream file(std::string("/proc/self/task/") + task->d_name + "/comm");
    std::string name;
    std::getline(file, name);
    if (name.rfind("conclave-", 0) == 0) ++threads.ours;
  }
  closedir(tasks);
  return threads;
}

class ThreadsTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(ThreadsTest, AClientHoldsThreeWhateverItWatchesAndHolds) {
  constexpr int kOurs = 3;
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  // gRPC starts threads of its own with the first channel: they are there before we count.
  auto stub = etcdserverpb::KV::NewStub(
      grpc::CreateChannel(cluster->endpoint(0), grpc::InsecureChannelCredentials()));
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    etcdserverpb::PutRequest request;
    request.set_key("bare");
    etcdserverpb::PutResponse response;
    ASSERT_TRUE(stub->Put(&context, request, &response).ok());
  }
  const Threads bare = CountThreads();
  EXPECT_EQ(bare.ours, 0);
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->Put("k", "1").ok());
  const Threads connected = CountThreads();
  std::vector<Watch> watches;
  std::vector<Session> sessions;
  Collector seen;
  for (int i = 0; i < 100; ++i) {
    watches.push_back(client->Watch("k", {}, seen.Callback()));
    auto session = client->OpenSession({.ttl = absl::Seconds(30)});
    ASSERT_TRUE(session.ok()) << session.status();
    sessions.push_back(*std::move(session));
  }
  ASSERT_TRUE(WaitFor([&] {
    for (const Watch& watch : watches) {
      if (!watch.lag().connected) return false;
    }
    return true;
  }));
  ASSERT_TRUE(client->Put("k", "2").ok());
  ASSERT_TRUE(seen.WaitForEvents(100));
  const Threads busy = CountThreads();
  EXPECT_EQ(connected.ours, kOurs);
  EXPECT_EQ(busy.ours, kOurs) << "100 watches and 100 sessions";
  // gRPC's pool may grow or shrink by a thread meanwhile, whoever calls it.
  EXPECT_LE(busy.all, bare.all + kOurs + 2);
  watches.clear();
  sessions.clear();
  client = absl::CancelledError("gone");
  EXPECT_TRUE(WaitFor([] { return CountThreads().ours == 0; }));
}

INSTANTIATE_TEST_SUITE_P(Servers, ThreadsTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
