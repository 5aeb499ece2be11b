// Blocking calls in close succession, which run the engine on the caller's own thread: nothing else
// of the client may suffer from it, and they must end like all others.
#include <atomic>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::Collector;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

class BlockingCallsTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  // Enough of them for the caller's thread to have taken over.
  static void MakeCalls(const Client& client, int count = 50) {
    for (int i = 0; i < count; ++i) {
      auto put = client.Put("warm", std::to_string(i));
      ASSERT_TRUE(put.ok()) << put.status();
    }
  }
};

TEST_P(BlockingCallsTest, EventsComeWhileAThreadMakesOneCallAfterTheOther) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Collector seen;
  Watch watch = client->Watch("k", {.from_revision = 1}, seen.Callback());
  for (int i = 0; i < 500; ++i) {
    auto put = client->Put("k", std::to_string(i));
    ASSERT_TRUE(put.ok()) << put.status();
    // And not only when the calls have ended.
    if (i % 100 != 99) continue;
    EXPECT_TRUE(seen.WaitForEvents(static_cast<size_t>(i)));
  }
  ASSERT_TRUE(seen.WaitForEvents(500));
  const std::vector<WatchEvent> events = seen.events();
  for (int i = 0; i < 500; ++i) ASSERT_EQ(events[i].kv.value, std::to_string(i));
}

TEST_P(BlockingCallsTest, ASessionIsRenewedAndAnAsynchronousCallAnsweredMeanwhile) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  ASSERT_TRUE(session.ok()) << session.status();
  std::atomic<int> answered = 0;
  const absl::Time end = absl::Now() + 2 * session->ttl();
  int asked = 0;
  while (absl::Now() < end) {
    MakeCalls(*client);
    ++asked;
    client->RangeAsync({.range = "warm"}, {}, [&answered](absl::StatusOr<RangeResult> result) {
      EXPECT_TRUE(result.ok()) << result.status();
      ++answered;
    });
  }
  EXPECT_TRUE(session->alive());
  EXPECT_TRUE(WaitFor([&] { return answered == asked; }));
}

TEST_P(BlockingCallsTest, AStopEndsTheOneThatWaits) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  MakeCalls(*client);
  cluster->Pause(0);
  // The signal may need a moment.
  ASSERT_TRUE(WaitFor(
      [&] { return !client->Put("k", "v", {}, {.timeout = absl::Milliseconds(100)}).ok(); }));
  std::stop_source stop;
  std::atomic<bool> waiting = false;
  std::thread stopper([&] {
    ASSERT_TRUE(WaitFor([&] { return waiting.load(); }));
    // It may or may not have begun to wait: both must end it.
    stop.request_stop();
  });
  waiting = true;
  const absl::Time start = absl::Now();
  auto put = client->Put("k", "v", {}, {.timeout = absl::Seconds(30), .stop = stop.get_token()});
  EXPECT_EQ(put.status().code(), absl::StatusCode::kCancelled) << put.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
  stopper.join();
  cluster->Resume(0);
}

TEST_P(BlockingCallsTest, AnotherThreadsCallsDoNotWaitForTheOneThatHangs) {
  CONCLAVE_START_CLUSTER(hung, GetParam());
  auto client = Client::Connect({.endpoints = hung->endpoints()});
  ASSERT_TRUE(client.ok());
  MakeCalls(*client);
  hung->Pause(0);
  // The signal may need a moment.
  ASSERT_TRUE(WaitFor(
      [&] { return !client->Put("k", "v", {}, {.timeout = absl::Milliseconds(100)}).ok(); }));
  std::thread hanging([&] {
    auto put = client->Put("k", "v", {}, {.timeout = absl::Seconds(3)});
    EXPECT_EQ(put.status().code(), absl::StatusCode::kDeadlineExceeded) << put.status();
    EXPECT_TRUE(IsOutcomeUnknown(put.status()));
  });
  auto short_put = client->Put("k", "v", {}, {.timeout = absl::Milliseconds(100)});
  EXPECT_EQ(short_put.status().code(), absl::StatusCode::kDeadlineExceeded);
  hanging.join();
  hung->Resume(0);
}

TEST_P(BlockingCallsTest, AKilledServerEndsTheOneThatWaitsAndItsReturnServesTheNext) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  MakeCalls(*client);
  cluster->Pause(0);
  ASSERT_TRUE(WaitFor(
      [&] { return !client->Put("k", "v", {}, {.timeout = absl::Milliseconds(100)}).ok(); }));
  std::thread waiting([&] {
    // Killed before or after it was sent: it ends, and long before its deadline if it was.
    auto put = client->Put("k", "v", {}, {.timeout = absl::Seconds(5)});
    EXPECT_FALSE(put.ok());
    EXPECT_TRUE(IsRetryable(put.status())) << put.status();
  });
  cluster->Kill(0);
  waiting.join();
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EXPECT_TRUE(WaitFor([&] { return client->Put("k", "w").ok(); }));
  MakeCalls(*client);
}

TEST_P(BlockingCallsTest, ThreadsThatComeAndGoGetTheirOwnAnswers) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back([&client, round, i] {
        const std::string key = std::to_string(round) + "/" + std::to_string(i);
        for (int n = 0; n < 100; ++n) {
          auto put = client->Put(key, std::to_string(n), {.prev_kv = true});
          ASSERT_TRUE(put.ok()) << put.status();
          ASSERT_EQ(put->prev_kv.has_value(), n > 0);
          if (n == 0) continue;
          ASSERT_EQ(put->prev_kv->value, std::to_string(n - 1));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    MakeCalls(*client, 20);  // alone again
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, BlockingCallsTest, ::testing::ValuesIn(SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
