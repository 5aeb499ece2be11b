// Semaphore: never more than its permits, in the order of arrival, whatever the sizes.
#include "conclave/lock/semaphore.h"

#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class SemaphoreTest : public testing::LockTest {
 protected:
  [[nodiscard]] bool QueueBecomes(int64_t length) { return KeysBecome(name_ + "/queue/", length); }
};

TEST_P(SemaphoreTest, GivesAsManyAsThereAre) {
  Session a = NewSession(), b = NewSession();
  Semaphore first(a, name_, {.permits = 3}), second(b, name_, {.permits = 3});
  auto one = first.Acquire(1, Soon());
  ASSERT_TRUE(one.ok()) << one.status();
  auto two = second.Acquire(2, Soon());
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->permits(), 2);
  EXPECT_GT(two->token(), one->token());
  auto refused = first.TryAcquire();
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(refused->has_value());
  EXPECT_TRUE(QueueBecomes(2));  // the try left nothing
  EXPECT_TRUE(one->Unlock().ok());
  auto tried = first.TryAcquire();
  ASSERT_TRUE(tried.ok()) << tried.status();
  EXPECT_TRUE(tried->has_value());
  auto put = client().Txn().If(two->StillHeld()).Then(Put(name_ + "-x", "")).Commit();
  ASSERT_TRUE(put.ok());
  EXPECT_TRUE(put->succeeded);
}

TEST_P(SemaphoreTest, AnyReleaseAdmitsTheFirstWaiter) {
  Session session = NewSession();
  Semaphore semaphore(session, name_, {.permits = 3});
  std::vector<PermitGuard> held;
  for (int i = 0; i < 3; ++i) {
    auto guard = semaphore.Acquire(1, Soon());
    ASSERT_TRUE(guard.ok());
    held.push_back(*std::move(guard));
  }
  std::vector<std::future<absl::StatusOr<PermitGuard>>> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.push_back(Later([&] { return semaphore.Acquire(1, Soon()); }));
    ASSERT_TRUE(QueueBecomes(4 + i));
  }
  // Not only the oldest holder's: the last one lets the first waiter in, and so on.
  for (int i : {2, 0, 1}) {
    ASSERT_TRUE(held[i].Unlock().ok());
    const size_t next = i == 2 ? 0 : i == 0 ? 1 : 2;
    auto guard = waiting[next].get();
    ASSERT_TRUE(guard.ok()) << guard.status();
    held.push_back(*std::move(guard));
  }
  EXPECT_FALSE(Ready(waiting[3]));
  ASSERT_TRUE(held[4].Unlock().ok());
  EXPECT_TRUE(waiting[3].get().ok());
}

TEST_P(SemaphoreTest, AGreatRequestIsNotStarvedAndSeveralComeInAtOnce) {
  Session session = NewSession();
  Semaphore semaphore(session, name_, {.permits = 4});
  auto all = semaphore.Acquire(4, Soon());
  ASSERT_TRUE(all.ok());
  auto great = Later([&] { return semaphore.Acquire(3, Soon()); });
  ASSERT_TRUE(QueueBecomes(2));
  auto small = Later([&] { return semaphore.Acquire(1, Soon()); });
  ASSERT_TRUE(QueueBecomes(3));
  auto behind = Later([&] { return semaphore.Acquire(1, Soon()); });
  ASSERT_TRUE(QueueBecomes(4));
  auto queue = semaphore.Queue();
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->size(), 4u);
  EXPECT_TRUE((*queue)[0].holds);
  EXPECT_EQ((*queue)[1].permits, 3);
  EXPECT_FALSE((*queue)[1].holds);
  ASSERT_TRUE(all->Unlock().ok());
  auto three = great.get();
  auto one = small.get();  // one release, two that fit
  ASSERT_TRUE(three.ok() && one.ok());
  EXPECT_LT(three->token(), one->token());
  EXPECT_FALSE(Ready(behind));
  ASSERT_TRUE(one->Unlock().ok());
  EXPECT_TRUE(behind.get().ok());
}

TEST_P(SemaphoreTest, AWaiterThatGivesUpLetsTheNextOnesIn) {
  Session session = NewSession();
  Semaphore semaphore(session, name_, {.permits = 2});
  auto one = semaphore.Acquire(1, Soon());
  ASSERT_TRUE(one.ok());
  std::stop_source stop;
  auto great = Later([&] { return semaphore.Acquire(2, {.stop = stop.get_token()}); });
  ASSERT_TRUE(QueueBecomes(2));
  auto small = Later([&] { return semaphore.Acquire(1, Soon()); });
  ASSERT_TRUE(QueueBecomes(3));
  EXPECT_FALSE(Ready(small));
  stop.request_stop();
  EXPECT_EQ(great.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(small.get().ok());
}

TEST_P(SemaphoreTest, AllMustNameTheSameNumber) {
  Session session = NewSession();
  Semaphore four(session, name_, {.permits = 4}), five(session, name_, {.permits = 5});
  auto guard = four.Acquire(1, Soon());
  ASSERT_TRUE(guard.ok());
  for (bool trying : {false, true}) {
    absl::Status other = trying ? five.TryAcquire().status() : five.Acquire(1, Soon()).status();
    EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(other.message().find("has 4 permits, not 5"), std::string::npos) << other;
  }
  EXPECT_TRUE(QueueBecomes(1));
  EXPECT_EQ(four.Remove().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(guard->Unlock().ok());
  EXPECT_TRUE(four.Remove().ok());
  EXPECT_TRUE(KeysBecome(name_, 0));
  EXPECT_TRUE(five.Acquire(5, Soon()).ok());
}

TEST_P(SemaphoreTest, ALostSessionFreesItsPermits) {
  Session a = NewSession(absl::Seconds(30)), b = NewSession();
  Semaphore first(a, name_, {.permits = 2}), second(b, name_, {.permits = 2});
  auto both = first.Acquire(2, Soon());
  ASSERT_TRUE(both.ok());
  auto waiting = Later([&] { return second.Acquire(2, Soon()); });
  ASSERT_TRUE(QueueBecomes(2));
  ASSERT_TRUE(client().Revoke(a.lease_id()).ok());
  auto next = waiting.get();
  ASSERT_TRUE(next.ok());
  EXPECT_TRUE(WaitFor([&] { return both->stop_token().stop_requested(); }));
  EXPECT_FALSE(both->held());
  EXPECT_TRUE(IsLost(both->Unlock()));
}

// Random sizes and patience; the model: the permits inside never exceed what there is, and those
// who wait without giving up come in by the order of their tokens.
TEST_P(SemaphoreTest, NeverGivesMoreThanThereAre) {
  constexpr int kThreads = 8, kRounds = 12, kSessions = 3, kPermits = 5;
  std::vector<Session> sessions;
  for (int i = 0; i < kSessions; ++i) sessions.push_back(NewSession());
  std::mutex mutex;
  int64_t inside = 0, most = 0, entered = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(100 + i);
      Semaphore semaphore(sessions[i % kSessions], name_, {.permits = kPermits});
      for (int round = 0; round < kRounds; ++round) {
        const int64_t permits = 1 + static_cast<int64_t>(random() % kPermits);
        const bool patient = random() % 4 != 0;
        auto guard = semaphore.Acquire(
            permits, {.timeout = patient ? absl::Seconds(60) : absl::Milliseconds(random() % 40)});
        if (!guard.ok()) {
          EXPECT_EQ(guard.status().code(), absl::StatusCode::kDeadlineExceeded);
          EXPECT_FALSE(patient) << guard.status();
          continue;
        }
        {
          std::lock_guard lock(mutex);
          inside += permits;
          most = std::max(most, inside);
          ++entered;
          EXPECT_LE(inside, kPermits);
        }
        std::this_thread::yield();
        {
          std::lock_guard lock(mutex);
          inside -= permits;
        }
        EXPECT_TRUE(guard->Unlock(Soon()).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(entered, kThreads);
  EXPECT_LE(most, kPermits);
  EXPECT_TRUE(QueueBecomes(0));
}

INSTANTIATE_TEST_SUITE_P(Servers, SemaphoreTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
