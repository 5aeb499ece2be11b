// Handles that are made, moved, used and dropped at random, a thousand of each kind, by several
// threads at once. The sanitizers look on; afterwards nothing of them is left in the store.
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/prng.h"
#include "conclave/election/election.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

constexpr int kThreads = 4;
constexpr int kLivesEach = 250;

class LifetimesTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  // Each thread lives kLivesEach lives.
  template <typename Life>
  static void Live(Life life) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([i, &life] {
        Prng prng(100 + i);
        for (int n = 0; n < kLivesEach; ++n) life(prng, i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  void ExpectNothingLeft(const std::string& prefix) {
    EXPECT_TRUE(WaitFor(
        [&] {
          auto left = client_->Range(Prefix(prefix), {.count_only = true});
          return left.ok() && left->count == 0;
        },
        absl::Seconds(20)))
        << prefix;
  }

  std::optional<Client> client_;
};

TEST_P(LifetimesTest, Leaderships) {
  const std::string prefix = "lives/leadership";
  std::atomic<int> led = 0, overlaps = 0;
  std::atomic<int> leading[kThreads] = {};
  std::vector<Session> sessions(kThreads);
  Live([&](Prng& prng, int thread) {
    Session& session = sessions[thread];
    if (!session.alive() || prng.Chance(1, 50)) {
      auto opened = client_->OpenSession({.ttl = absl::Seconds(10)});
      ASSERT_TRUE(opened.ok()) << opened.status();
      session = *std::move(opened);
    }
    const std::string name = absl::StrCat(prefix, prng.Below(2));
    Election election(*client_, name);
    std::stop_source stop;
    CallOptions call{.stop = stop.get_token()};
    call.timeout = absl::Milliseconds(prng.Between(0, 20));
    if (prng.Chance(1, 10)) stop.request_stop();
    auto won = prng.Chance(1, 2) ? election.Campaign(session, "x", call)
                                 : election.CampaignAs(session, {.id = "x", .priority = 1}, call);
    if (!won.ok()) return;
    ++led;
    const size_t slot = name.back() - '0';
    if (++leading[slot] > 1) ++overlaps;
    if (prng.Chance(1, 3)) (void)won->Proclaim("y");
    Leadership moved = *std::move(won);
    --leading[slot];
    if (prng.Chance(1, 2)) (void)moved.Resign();
    if (prng.Chance(1, 20)) session = Session();  // goes before what stands on it
  });
  EXPECT_GT(led, 0);
  EXPECT_EQ(overlaps, 0);
  sessions.clear();
  ExpectNothingLeft(prefix);
}

TEST_P(LifetimesTest, Observations) {
  const std::string prefix = "lives/observation";
  std::atomic<int64_t> heard = 0;
  std::atomic<bool> late = false;
  Live([&](Prng& prng, int) {
    Election election(*client_, absl::StrCat(prefix, prng.Below(2)));
    auto alive = std::make_shared<std::atomic<bool>>(true);
    {
      Observation observation =
          election.Observe([alive, &heard, &late](const std::optional<LeaderInfo>&) {
            if (!*alive) late = true;
            ++heard;
          });
      if (prng.Chance(1, 2)) (void)election.Leader();
      Observation moved;
      if (prng.Chance(1, 2)) moved = std::move(observation);
    }
    *alive = false;
  });
  EXPECT_GT(heard, 0);
  EXPECT_FALSE(late);
}

TEST_P(LifetimesTest, Candidates) {
  const std::string prefix = "lives/candidate";
  std::atomic<int> terms = 0, running = 0;
  Live([&](Prng& prng, int thread) {
    Election election(*client_, absl::StrCat(prefix, prng.Below(2)));
    std::atomic<bool> alive = true;
    std::atomic<bool> late = false;
    {
      auto candidate = election.RunWhileLeader(
          {.id = absl::StrCat("c", thread),
           .priority = static_cast<int>(prng.Below(3)),
           .settle = prng.Chance(1, 2) ? absl::ZeroDuration() : absl::InfiniteDuration(),
           .cooldown = absl::ZeroDuration()},
          [&](Leadership& leadership, std::stop_token) {
            ++running;
            ++terms;
            (void)leadership.StillLeader();
            if (!alive) late = true;
            --running;
            return absl::OkStatus();
          });
      ASSERT_TRUE(candidate.ok());
      if (prng.Chance(1, 2)) {
        (void)candidate->Await({.timeout = absl::Milliseconds(prng.Between(0, 20))});
      }
      if (prng.Chance(1, 10)) (void)candidate->TransferTo("c0", {.timeout = absl::Milliseconds(5)});
      Candidate moved = *std::move(candidate);
      (void)moved.IsLeader();
    }
    alive = false;
    EXPECT_FALSE(late);
  });
  EXPECT_GT(terms, 0);
  EXPECT_EQ(running, 0);
  ExpectNothingLeft(prefix);
}

INSTANTIATE_TEST_SUITE_P(Servers, LifetimesTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
