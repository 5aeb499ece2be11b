// Handles that are made, moved, used and dropped at random, a thousand of each
// kind, by several threads at once. The sanitizers look on; afterwards nothing
// of them is left in the store.
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/coordination/cron.h"
#include "conclave/coordination/group.h"
#include "conclave/coordination/queue.h"
#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::ServerName;
using testing::SingleServers;
using testing::Soon;
using testing::WaitFor;

constexpr int kThreads = 4;
constexpr int kLivesEach = 250;

class LifetimesTest : public testing::RecipeTest {
 protected:
  // Each thread lives kLivesEach lives, on a session of its own.
  template <typename Life>
  void Live(Life life) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([this, i, &life] {
        Prng prng(200 + i);
        Session session;
        for (int n = 0; n < kLivesEach; ++n) {
          if (!session.alive()) session = NewSession();
          life(prng, session, i);
          if (prng.Chance(1, 40)) session = Session();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  void ExpectNothingLeft(const std::string& prefix) {
    EXPECT_TRUE(WaitFor([&] { return Count(prefix) == 0; }, absl::Seconds(20))) << prefix;
  }
};

TEST_P(LifetimesTest, Memberships) {
  std::atomic<int> joined = 0;
  Live([&](Prng& prng, Session& session, int) {
    Group group(client(), name_);
    auto member = group.Join(session, absl::StrCat(prng.Below(6)), "data");
    if (!member.ok()) return;
    ++joined;
    if (prng.Chance(1, 3)) (void)member->Update("other");
    if (prng.Chance(1, 20)) session = Session();  // goes before what stands on it
    Membership moved = *std::move(member);
    (void)moved.alive();
    if (prng.Chance(1, 2)) (void)moved.Leave();
  });
  EXPECT_GT(joined, 0);
  ExpectNothingLeft(name_ + "/");
}

TEST_P(LifetimesTest, GroupWatches) {
  std::atomic<int64_t> heard = 0;
  std::atomic<bool> late = false;
  Live([&](Prng& prng, Session& session, int thread) {
    Group group(client(), name_);
    auto alive = std::make_shared<std::atomic<bool>>(true);
    {
      GroupWatch watch = group.Watch([alive, &heard, &late](const GroupChange&) {
        if (!*alive) late = true;
        ++heard;
      });
      if (prng.Chance(1, 2)) (void)group.Join(session, absl::StrCat(thread));
      GroupWatch moved;
      if (prng.Chance(1, 2)) moved = std::move(watch);
    }
    *alive = false;
  });
  EXPECT_GT(heard, 0);
  EXPECT_FALSE(late);
}

TEST_P(LifetimesTest, TakenItems) {
  std::atomic<int> taken = 0;
  Live([&](Prng& prng, Session& session, int) {
    Queue queue(session, name_);
    if (prng.Chance(2, 3)) {
      (void)queue.Push("x", {.priority = static_cast<int>(prng.Below(3))});
    }
    auto item = queue.TryTake();
    if (!item.ok() || !item->has_value()) return;
    ++taken;
    if (prng.Chance(1, 20)) session = Session();  // goes before what stands on it
    TakenItem moved = **std::move(item);
    if (prng.Chance(1, 2)) (void)moved.Ack();
    if (prng.Chance(1, 4)) (void)moved.Nack();
  });
  EXPECT_GT(taken, 0);
  ExpectNothingLeft(name_ + "/item-taken/");
  // What was given back is there again, each once.
  Session session = NewSession();
  Queue queue(session, name_);
  const int64_t left = *queue.Size();
  int64_t popped = 0;
  while ((*queue.TryPop(Soon())).has_value()) ++popped;
  EXPECT_EQ(popped, left);
}

TEST_P(LifetimesTest, Crons) {
  std::atomic<int> runs = 0;
  Live([&](Prng& prng, Session&, int) {
    std::atomic<bool> alive = true;
    auto cron = Cron::Start(client(), absl::StrCat(name_, prng.Below(2)),
                            {.schedule = "@every 1s", .catch_up = CatchUp::kOnce},
                            [&](const CronRun&, std::stop_token) {
                              EXPECT_TRUE(alive);
                              ++runs;
                              return absl::OkStatus();
                            });
    ASSERT_TRUE(cron.ok());
    {
      Cron moved = *std::move(cron);
      if (prng.Chance(1, 4)) (void)moved.LastTick();
      (void)moved.IsLeader();
    }
    alive = false;
  });
  ExpectNothingLeft(name_ + "0/election/");
  ExpectNothingLeft(name_ + "1/election/");
}

INSTANTIATE_TEST_SUITE_P(Servers, LifetimesTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
