// MultiLock: all or nothing, without a circle, and beside Mutexes of the same names.
#include "conclave/lock/multi_lock.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "conclave/lock/mutex.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class MultiLockTest : public testing::LockTest {
 protected:
  std::string Name(int i) { return absl::StrCat(name_, "-", i); }
};

TEST_P(MultiLockTest, TakesAllWithOneToken) {
  Session session = NewSession(), other = NewSession();
  MultiLock both(session, {Name(2), Name(1), Name(2)});
  auto guard = both.Lock(Soon());
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(guard->keys().size(), 2u);
  EXPECT_TRUE(guard->held());
  TxnRequest fenced{.conditions = guard->StillHeld(), .success = {Put(name_ + "-x", "")}};
  ASSERT_EQ(fenced.conditions.size(), 2u);
  auto put = client().Commit(fenced);
  ASSERT_TRUE(put.ok());
  EXPECT_TRUE(put->succeeded);
  Mutex one(other, Name(1)), two(other, Name(2));
  EXPECT_FALSE(one.TryLock()->guard.has_value());
  auto refused = two.TryLock();
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(refused->guard.has_value());
  EXPECT_EQ(refused->holder->token, guard->token());
  EXPECT_TRUE(guard->Unlock().ok());
  EXPECT_TRUE(IsLost(guard->Unlock()));
  put = client().Commit(fenced);
  ASSERT_TRUE(put.ok());
  EXPECT_FALSE(put->succeeded);
  EXPECT_TRUE(one.TryLock()->guard.has_value());
  EXPECT_TRUE(WaitFor([&] { return Keys(Name(1) + "/") == 0; }));
}

TEST_P(MultiLockTest, ATryTakesNothingIfOneIsTaken) {
  Session session = NewSession(), other = NewSession();
  Mutex held(other, Name(2));
  auto guard = held.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  MultiLock three(session, {Name(1), Name(2), Name(3)});
  auto refused = three.TryLock();
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(refused->has_value());
  EXPECT_EQ(Keys(Name(1)), 0);
  EXPECT_EQ(Keys(Name(3)), 0);
  ASSERT_TRUE(guard->Unlock().ok());
  auto taken = three.TryLock();
  ASSERT_TRUE(taken.ok());
  EXPECT_TRUE(taken->has_value());
}

TEST_P(MultiLockTest, WaitsForAllAndLeavesNothingWhenItGivesUp) {
  Session session = NewSession(), a = NewSession(), b = NewSession();
  Mutex first(a, Name(1)), second(b, Name(2));
  auto one = first.Lock(Soon());
  auto two = second.Lock(Soon());
  ASSERT_TRUE(one.ok() && two.ok());
  MultiLock both(session, {Name(1), Name(2)});
  auto late = both.Lock({.timeout = absl::Milliseconds(200)});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(KeysBecome(Name(1) + "/", 1));
  EXPECT_TRUE(KeysBecome(Name(2) + "/", 1));
  auto waiting = Later([&] { return both.Lock(Soon()); });
  ASSERT_TRUE(KeysBecome(Name(2) + "/", 2));
  EXPECT_TRUE(two->Unlock().ok());
  EXPECT_FALSE(Ready(waiting));
  EXPECT_FALSE(second.TryLock()->guard.has_value());  // its place there is kept
  EXPECT_TRUE(one->Unlock().ok());
  EXPECT_TRUE(waiting.get().ok());
}

TEST_P(MultiLockTest, TheLossOfOneIsTheLossOfAll) {
  Session session = NewSession();
  MultiLock three(session, {Name(1), Name(2), Name(3)});
  auto guard = three.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  ASSERT_TRUE(client().Delete(guard->keys()[1]).ok());
  EXPECT_TRUE(WaitFor([&] { return guard->stop_token().stop_requested(); }));
  EXPECT_FALSE(guard->held());
  EXPECT_TRUE(KeysBecome(name_, 0));  // the others do not stay behind
  EXPECT_TRUE(IsLost(guard->Unlock()));
}

TEST_P(MultiLockTest, OneSessionsMutexAndMultiLockExcludeEachOther) {
  Session session = NewSession();
  Mutex mutex(session, Name(1));
  MultiLock both(session, {Name(1), Name(2)});
  auto guard = mutex.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  auto refused = both.TryLock();
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(refused->has_value());
  auto waiting = Later([&] { return both.Lock(Soon()); });
  ASSERT_TRUE(guard->Unlock().ok());
  EXPECT_TRUE(waiting.get().ok());
}

// Philosophers: random sets in random order, from several sessions and several threads of one.
TEST_P(MultiLockTest, NobodyWaitsInACircle) {
  constexpr int kThreads = 6, kRounds = 12, kNames = 4, kSessions = 3;
  std::vector<Session> sessions;
  for (int i = 0; i < kSessions; ++i) sessions.push_back(NewSession());
  std::mutex mutex;
  std::map<std::string, int64_t> last_token;
  std::map<std::string, int> inside;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(i);
      for (int round = 0; round < kRounds; ++round) {
        std::vector<std::string> names;
        for (int n = 0; n < kNames; ++n) names.push_back(Name(n));
        std::shuffle(names.begin(), names.end(), random);
        names.resize(1 + random() % 3);
        MultiLock lock(sessions[i % kSessions], names);
        auto guard = lock.Lock({.timeout = absl::Seconds(60)});
        ASSERT_TRUE(guard.ok()) << guard.status();
        {
          std::lock_guard guarded(mutex);
          for (const std::string& name : names) {
            EXPECT_EQ(++inside[name], 1);
            EXPECT_GT(guard->token(), last_token[name]);
            last_token[name] = guard->token();
          }
        }
        std::this_thread::yield();
        {
          std::lock_guard guarded(mutex);
          for (const std::string& name : names) --inside[name];
        }
        EXPECT_TRUE(guard->Unlock(Soon()).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(KeysBecome(name_, 0));
}

INSTANTIATE_TEST_SUITE_P(Servers, MultiLockTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
