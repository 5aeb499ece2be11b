// What Mutex can do besides locking: without waiting, on request, for a limited time, with a delay
// after its holder's death; and ReentrantMutex.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "conclave/lock/mutex.h"
#include "conclave/lock/reentrant_mutex.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class MutexFeaturesTest : public testing::LockTest {};

TEST_P(MutexFeaturesTest, LocksWithoutWaitingInTheOrderOfTheCalls) {
  constexpr int kCalls = 64;
  Session session = NewSession();
  Mutex mutex(session, name_);
  std::mutex guard_of_order;
  std::vector<int> order;
  std::vector<int64_t> tokens;
  for (int i = 0; i < kCalls; ++i) {
    mutex.LockAsync(Soon(), [&, i](absl::StatusOr<LockGuard> guard) {
      ASSERT_TRUE(guard.ok()) << guard.status();
      std::lock_guard lock(guard_of_order);
      order.push_back(i);
      tokens.push_back(guard->token());
    });  // its end unlocks
  }
  ASSERT_TRUE(WaitFor(
      [&] {
        std::lock_guard lock(guard_of_order);
        return order.size() == kCalls;
      },
      absl::Seconds(60)));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(std::adjacent_find(tokens.begin(), tokens.end(), std::greater_equal<>()),
            tokens.end());  // strictly growing
  EXPECT_TRUE(KeysBecome(name_, 0));
}

TEST_P(MutexFeaturesTest, AnAsynchronousLockCanBeStopped) {
  Session a = NewSession(), b = NewSession();
  Mutex first(a, name_), second(b, name_);
  auto guard = first.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  std::stop_source stop;
  std::promise<absl::Status> ended;
  second.LockAsync({.stop = stop.get_token()},
                   [&ended](absl::StatusOr<LockGuard> never) { ended.set_value(never.status()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  stop.request_stop();
  EXPECT_EQ(ended.get_future().get().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(KeysBecome(name_ + "/", 1));
}

TEST_P(MutexFeaturesTest, SixtyFourThreadsOfOneSessionHaveOneKeyInTheCluster) {
  constexpr int kThreads = 64;
  Session session = NewSession();
  std::atomic<int> inside = 0, done = 0;
  std::atomic<int64_t> last_token = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      Mutex mutex(session, name_);
      auto guard = mutex.Lock({.timeout = absl::Seconds(60)});
      ASSERT_TRUE(guard.ok()) << guard.status();
      EXPECT_EQ(++inside, 1);
      EXPECT_GT(guard->token(), last_token.exchange(guard->token()));
      --inside;
      EXPECT_TRUE(guard->Unlock(Soon()).ok());
      ++done;
    });
  }
  int64_t most = 0;
  EXPECT_TRUE(WaitFor(
      [&] {
        most = std::max(most, Keys(name_ + "/"));
        return done == kThreads;
      },
      absl::Seconds(60)));
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 1);
}

TEST_P(MutexFeaturesTest, AHolderHearsThatOthersWantIt) {
  Session a = NewSession(), b = NewSession();
  Mutex first(a, name_), second(b, name_);
  EXPECT_EQ(second.RequestRelease().code(), absl::StatusCode::kNotFound);
  auto guard = first.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  std::stop_token requested = guard->release_requested();
  EXPECT_FALSE(requested.stop_requested());
  ASSERT_TRUE(second.RequestRelease().ok());
  EXPECT_TRUE(WaitFor([&] { return requested.stop_requested(); }));
  EXPECT_TRUE(guard->held());  // it is up to the holder
  EXPECT_TRUE(guard->Unlock().ok());
  EXPECT_TRUE(KeysBecome(name_, 0));  // the request goes with it
  auto next = second.Lock(Soon());
  ASSERT_TRUE(next.ok());
  ASSERT_TRUE(first.RequestRelease().ok());
  // Asked before it listens: heard as well.
  EXPECT_TRUE(WaitFor([&] { return next->release_requested().stop_requested(); }));
}

TEST_P(MutexFeaturesTest, ALockHeldForTooLongIsGivenUp) {
  Session a = NewSession(), b = NewSession();
  std::atomic<int> overruns = 0;
  Mutex first(a, name_,
              {.max_hold = absl::Milliseconds(100), .on_overrun = [&overruns] { ++overruns; }});
  Mutex second(b, name_);
  auto guard = first.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  auto next = second.Lock(Soon());
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(overruns, 1);
  EXPECT_FALSE(guard->held());
  EXPECT_TRUE(guard->stop_token().stop_requested());
  EXPECT_TRUE(IsLost(guard->Unlock()));
  EXPECT_TRUE(next->held());
}

TEST_P(MutexFeaturesTest, ALockGivenBackInTimeIsNotOverrun) {
  Session session = NewSession();
  std::atomic<int> overruns = 0;
  Mutex mutex(session, name_,
              {.max_hold = absl::Seconds(1), .on_overrun = [&overruns] { ++overruns; }});
  ASSERT_TRUE(mutex.Lock(Soon())->Unlock().ok());
  auto again = mutex.Lock(Soon());
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(WaitFor([&] { return !again->held(); }));
  EXPECT_EQ(overruns, 1);  // the second one's
}

TEST_P(MutexFeaturesTest, WorkUnderALockTellsWhatFailed) {
  Session session = NewSession();
  int64_t token = 0;
  EXPECT_TRUE(WithLock(session, name_, {}, [&](const LockGuard& guard) {
                token = guard.token();
                return absl::OkStatus();
              }).ok());
  EXPECT_GT(token, 0);
  absl::Status failed = WithLock(
      session, name_, {}, [](const LockGuard&) { return absl::DataLossError("no"); }, Soon());
  EXPECT_EQ(failed.code(), absl::StatusCode::kDataLoss);
  absl::Status lost = WithLock(session, name_, {}, [&](const LockGuard& guard) {
    return client().Delete(guard.key()).status();
  });
  EXPECT_TRUE(IsLost(lost)) << lost;
  EXPECT_TRUE(KeysBecome(name_, 0));
}

TEST_P(MutexFeaturesTest, ALockDelayKeepsOthersOutAfterADeath) {
  Session dying = NewSession(absl::Seconds(2)), other = NewSession();
  const MutexOptions options{.holder = "printer-1", .lock_delay = absl::Seconds(1)};
  Mutex theirs(other, name_, {.holder = "printer-2"});
  {
    auto clean = Mutex(dying, name_, options).Lock(Soon());
    ASSERT_TRUE(clean.ok()) << clean.status();
    EXPECT_EQ(Keys(name_ + "~hold"), 1);
    EXPECT_TRUE(clean->Unlock().ok());
  }
  EXPECT_EQ(Keys(name_ + "~hold"), 0);  // nothing remains of a clean end
  Mutex mine(dying, name_, options);
  auto guard = mine.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  ASSERT_TRUE(client().Revoke(dying.lease_id()).ok());
  const absl::Time died = absl::Now();
  ASSERT_TRUE(KeysBecome(name_ + "/", 0));
  auto refused = theirs.TryLock();
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(refused->guard.has_value());
  EXPECT_FALSE(refused->holder.has_value());
  EXPECT_EQ(theirs.Lock({.timeout = absl::Milliseconds(100)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // The same holder, in a new session, need not wait.
  Session reborn = NewSession();
  Mutex again(reborn, name_, {.holder = "printer-1"});
  auto tried = again.TryLock();
  ASSERT_TRUE(tried.ok()) << tried.status();
  ASSERT_TRUE(tried->guard.has_value());
  EXPECT_GT(tried->guard->token(), guard->token());
  EXPECT_TRUE(tried->guard->Unlock().ok());
  // It had asked for no delay itself, so the old one goes on.
  auto next = theirs.Lock({.timeout = absl::Seconds(60)});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_GE(absl::Now() - died, absl::Seconds(1));
  EXPECT_TRUE(IsLost(guard->Unlock()));
}

TEST_P(MutexFeaturesTest, AnOwnerLocksAgainAndOthersWaitForHisLastGuard) {
  Session a = NewSession(), b = NewSession();
  ReentrantMutex mutex(a, name_);
  LockOwner me, you;
  auto outer = mutex.Lock(me, Soon());
  ASSERT_TRUE(outer.ok()) << outer.status();
  auto inner = mutex.Lock(me, {.timeout = absl::ZeroDuration()});
  ASSERT_TRUE(inner.ok()) << inner.status();
  EXPECT_EQ(inner->token(), outer->token());
  EXPECT_EQ(mutex.Lock(you, {.timeout = absl::Milliseconds(50)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(Mutex(b, name_).TryLock()->guard.has_value());
  EXPECT_TRUE(outer->Unlock().ok());
  EXPECT_FALSE(outer->held());
  EXPECT_TRUE(inner->held());
  EXPECT_TRUE(IsLost(outer->Unlock()));
  auto waiting = Later([&] { return mutex.Lock(you, Soon()); });
  EXPECT_TRUE(inner->Unlock().ok());
  auto yours = waiting.get();
  ASSERT_TRUE(yours.ok());
  EXPECT_GT(yours->token(), inner->token());
}

TEST_P(MutexFeaturesTest, ALostReentrantLockIsLostForAllItsGuards) {
  Session session = NewSession();
  ReentrantMutex mutex(session, name_);
  LockOwner me;
  auto outer = mutex.Lock(me, Soon());
  auto inner = mutex.Lock(me, Soon());
  ASSERT_TRUE(outer.ok() && inner.ok());
  ASSERT_TRUE(client().Delete(Prefix(name_ + "/")).ok());
  EXPECT_TRUE(WaitFor([&] { return inner->stop_token().stop_requested(); }));
  EXPECT_TRUE(IsLost(mutex.Lock(me, Soon()).status()));
  EXPECT_TRUE(IsLost(inner->Unlock()));
  EXPECT_TRUE(IsLost(outer->Unlock()));
  EXPECT_TRUE(mutex.Lock(me, Soon()).ok());  // all guards given up: from the beginning
}

TEST_P(MutexFeaturesTest, AnOwnerDoesNotAskFromTwoThreads) {
  Session a = NewSession(), b = NewSession();
  auto held = Mutex(b, name_).Lock(Soon());
  ASSERT_TRUE(held.ok());
  ReentrantMutex mutex(a, name_);
  LockOwner me;
  auto waiting = Later([&] { return mutex.Lock(me, Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  EXPECT_EQ(mutex.Lock(me, Soon()).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(held->Unlock().ok());
  EXPECT_TRUE(waiting.get().ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, MutexFeaturesTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
