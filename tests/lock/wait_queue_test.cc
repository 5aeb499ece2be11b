// WaitQueue: a kind of lock that somebody else makes of it; and what all kinds say of bad input.
#include "conclave/lock/wait_queue.h"

#include <atomic>
#include <thread>
#include <vector>

#include "conclave/lock/lock.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerKind;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::Soon;
using testing::WaitFor;

class WaitQueueTest : public testing::LockTest {};

TEST_P(WaitQueueTest, TellsWhoIsEarlierAndWhenTheyAreGone) {
  Session a = NewSession(), b = NewSession();
  WaitQueue first(a, name_), second(b, name_);
  auto one = first.Join("one", "red/");
  auto two = first.Join("two", "blue/");
  auto three = second.Join("three");
  ASSERT_TRUE(one.ok() && two.ok() && three.ok()) << one.status() << two.status();
  auto earlier = three->Earlier();
  ASSERT_TRUE(earlier.ok()) << earlier.status();
  ASSERT_EQ(earlier->size(), 2u);
  EXPECT_EQ((*earlier)[0].value, "one");
  EXPECT_EQ((*earlier)[1].create_revision, two->token());
  auto red = three->Earlier("red/");
  ASSERT_TRUE(red.ok());
  ASSERT_EQ(red->size(), 1u);
  EXPECT_EQ(three->WaitUntilGone(one->key(), {.timeout = absl::Milliseconds(50)}).code(),
            absl::StatusCode::kDeadlineExceeded);
  auto waiting = Later([&] { return three->WaitUntilGone(one->key()); });
  EXPECT_TRUE(one->Unlock().ok());
  EXPECT_TRUE(waiting.get().ok());
  EXPECT_TRUE(three->WaitUntilGone(one->key()).ok());  // gone already
  std::stop_source stop;
  auto stopped =
      Later([&] { return three->WaitUntilGone(two->key(), {.stop = stop.get_token()}); });
  stop.request_stop();
  EXPECT_EQ(stopped.get().code(), absl::StatusCode::kCancelled);
  auto places = second.Places();
  ASSERT_TRUE(places.ok());
  EXPECT_EQ(places->size(), 2u);
}

TEST_P(WaitQueueTest, AWaiterHearsThatItsPlaceIsLost) {
  Session a = NewSession(), b = NewSession();
  WaitQueue first(a, name_), second(b, name_);
  auto one = first.Join("one");
  auto two = second.Join("two");
  ASSERT_TRUE(one.ok() && two.ok());
  auto waiting = Later([&] { return two->WaitUntilGone(one->key()); });
  ASSERT_TRUE(client().Delete(two->key()).ok());
  EXPECT_TRUE(IsLost(waiting.get()));
  EXPECT_TRUE(IsLost(two->Earlier().status()));
  EXPECT_TRUE(IsLost(two->Unlock()));
}

// A lock of one's own: at most two inside, by the recipe of the header.
TEST_P(WaitQueueTest, ALockForPairsIsAFewLines) {
  constexpr int kThreads = 6;
  Session session = NewSession();
  std::atomic<int> inside = 0, entered = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      WaitQueue queue(session, name_);
      auto place = queue.Join("wants a pair");
      ASSERT_TRUE(place.ok()) << place.status();
      for (;;) {
        auto before = place->Earlier({}, Soon());
        ASSERT_TRUE(before.ok()) << before.status();
        if (before->size() < 2) break;
        ASSERT_TRUE(place->WaitUntilGone((*before)[before->size() - 2].key, Soon()).ok());
      }
      EXPECT_LE(++inside, 2);
      ++entered;
      --inside;
      EXPECT_TRUE(place->Unlock(Soon()).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(entered, kThreads);
  EXPECT_TRUE(KeysBecome(name_, 0));
}

INSTANTIATE_TEST_SUITE_P(Servers, WaitQueueTest, ::testing::ValuesIn(AllServers()), ServerName);

class BadLockInputTest : public testing::LockTest {};

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST_P(BadLockInputTest, NamesAreCheckedByTheFirstCall) {
  Session session = NewSession();
  const std::string bad[] = {"",
                             "/",
                             "a/",
                             "/a",
                             "a//b",
                             std::string("a\0b", 3),
                             "a\nb",
                             "caf\xe9",
                             "\xc0\x80",
                             "\xed\xa0\x80",
                             std::string(1025, 'x')};
  for (const std::string& name : bad) {
    SCOPED_TRACE(name.substr(0, 20));
    Mutex mutex(session, name);
    EXPECT_EQ(mutex.Lock().status().code(), kInvalid);
    EXPECT_EQ(mutex.TryLock().status().code(), kInvalid);
    EXPECT_EQ(mutex.Queue().status().code(), kInvalid);
    EXPECT_EQ(mutex.RequestRelease().code(), kInvalid);
    std::promise<absl::Status> answered;
    mutex.LockAsync(
        {}, [&answered](absl::StatusOr<LockGuard> guard) { answered.set_value(guard.status()); });
    EXPECT_EQ(answered.get_future().get().code(), kInvalid);
    EXPECT_EQ(ReentrantMutex(session, name).Lock(LockOwner()).status().code(), kInvalid);
    RWMutex rw(session, name);
    EXPECT_EQ(rw.ReadLock().status().code(), kInvalid);
    EXPECT_EQ(rw.TryWriteLock().status().code(), kInvalid);
    EXPECT_EQ(rw.Queue().status().code(), kInvalid);
    Semaphore semaphore(session, name, {.permits = 2});
    EXPECT_EQ(semaphore.Acquire().status().code(), kInvalid);
    EXPECT_EQ(semaphore.Remove().code(), kInvalid);
    EXPECT_EQ(MultiLock(session, {"good", name}).Lock().status().code(), kInvalid);
    EXPECT_EQ(WaitQueue(session, name).Join("v").status().code(), kInvalid);
  }
}

TEST_P(BadLockInputTest, OddNamesAreGoodNames) {
  Session session = NewSession();
  for (const char* name :
       {"~", "a~hold", "a~revoke", "ü/ß", "a b", "\"", "..", "%", "read/write"}) {
    const std::string odd = absl::StrCat(name_, "-", name);
    auto guard = Mutex(session, odd).Lock(Soon());
    ASSERT_TRUE(guard.ok()) << odd << ": " << guard.status();
    EXPECT_TRUE(guard->Unlock().ok());
  }
}

TEST_P(BadLockInputTest, OptionsAreCheckedByTheFirstCall) {
  Session session = NewSession();
  const auto lock = [&](const MutexOptions& options) {
    return Mutex(session, name_, options).Lock(Soon()).status().code();
  };
  EXPECT_EQ(lock({.lock_delay = absl::Seconds(-1)}), kInvalid);
  EXPECT_EQ(lock({.lock_delay = absl::InfiniteDuration()}), kInvalid);
  EXPECT_EQ(lock({.max_hold = absl::ZeroDuration()}), kInvalid);
  EXPECT_EQ(lock({.max_hold = -absl::InfiniteDuration()}), kInvalid);
  EXPECT_EQ(lock({.info = std::string(70'000, 'x')}), kInvalid);
  const auto acquire = [&](int64_t permits, int64_t wanted) {
    return Semaphore(session, name_, {.permits = permits}).Acquire(wanted, Soon()).status().code();
  };
  EXPECT_EQ(acquire(0, 1), kInvalid);
  EXPECT_EQ(acquire(-1, 1), kInvalid);
  EXPECT_EQ(acquire(kPermitsMax + 1, 1), kInvalid);
  EXPECT_EQ(acquire(4, 0), kInvalid);
  EXPECT_EQ(acquire(4, -4), kInvalid);
  EXPECT_EQ(acquire(4, 5), kInvalid);
  EXPECT_EQ(MultiLock(session, {}).Lock().status().code(), kInvalid);
  EXPECT_EQ(MultiLock(session, {"a", "a/b"}).Lock().status().code(), kInvalid);
  std::vector<std::string> many;
  for (size_t i = 0; i <= kMultiLockNamesMax; ++i) many.push_back(absl::StrCat(name_, "-", i));
  EXPECT_EQ(MultiLock(session, many).Lock().status().code(), kInvalid);
  many.pop_back();
  auto most = MultiLock(session, many).Lock(Soon());  // fits into one transaction
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_TRUE(most->Unlock().ok());
  EXPECT_TRUE(KeysBecome(name_, 0));
}

TEST_P(BadLockInputTest, WithoutASessionAllIsLost) {
  Session none;
  EXPECT_TRUE(IsLost(Mutex(none, name_).Lock().status()));
  EXPECT_TRUE(IsLost(RWMutex(none, name_).ReadLock().status()));
  EXPECT_TRUE(IsLost(Semaphore(none, name_, {}).Acquire().status()));
  EXPECT_TRUE(IsLost(MultiLock(none, {name_}).TryLock().status()));
  EXPECT_TRUE(IsLost(WaitQueue(none, name_).Join("").status()));
  bool answered = false;
  Mutex(none, name_).LockAsync({}, [&](absl::StatusOr<LockGuard> guard) {
    answered = IsLost(guard.status());
  });
  EXPECT_TRUE(answered);
}

TEST_P(BadLockInputTest, AKeyPutByHandInOurPlaceIsSaidToBeOne) {
  Session session = NewSession();
  ASSERT_TRUE(client().Put(absl::StrCat(name_, "/", absl::Hex(session.lease_id())), "x").ok());
  auto guard = Mutex(session, name_).Lock(Soon());
  EXPECT_EQ(guard.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client().Delete(Prefix(name_)).ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, BadLockInputTest,
                         ::testing::Values(ServerUnderTest{ServerKind::kEtcd, 1},
                                           ServerUnderTest{ServerKind::kConclave, 1}),
                         ServerName);

}  // namespace
}  // namespace conclave
