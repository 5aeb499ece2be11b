// A thousand handles of every kind that live and die in random order, with sessions that are lost
// under them. What is tested is that nothing is touched after its end: run it under the sanitizers.
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <variant>
#include <vector>

#include "conclave/lock/lock.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::ServerKind;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::WaitFor;

class LockLifetimesTest : public testing::LockTest {
 protected:
  using Handle = std::variant<Mutex, LockGuard, ReadGuard, WriteGuard, PermitGuard, MultiLockGuard,
                              ReentrantGuard, QueuePlace, Session>;
  static constexpr size_t kAliveMax = 24;
  static constexpr int kThreads = 3;
  static constexpr int kLifetimes = 1000;  // of each kind, in all
  static constexpr int kKinds = 8;

  void SetUp() override {
    LockTest::SetUp();
    if (cluster_ == nullptr) return;
    // Each lock that is held for too long is a warning, and here that is many.
    auto quiet = Client::Connect(
        {.endpoints = cluster_->endpoints(), .log_sink = [](LogLevel, std::string_view) {}});
    ASSERT_TRUE(quiet.ok()) << quiet.status();
    client_ = *std::move(quiet);
  }

  // Brief: most of these wait for each other.
  static CallOptions Brief(std::mt19937& random) {
    return {.timeout = absl::Milliseconds(random() % 8)};
  }

  // Makes one handle of the kind; tries count as well, for what they have under way dies with them.
  template <typename Keep>
  void Make(int kind, const Session& session, std::mt19937& random, Keep keep) {
    const std::string name = absl::StrCat(name_, "-", kind, "-", random() % 4);
    const auto keep_if = [&keep](auto made) {
      if (made.ok()) keep(Handle(*std::move(made)));
    };
    switch (kind) {
      case 0: {
        Mutex mutex(session, name, {.max_hold = absl::Milliseconds(1 + random() % 20)});
        keep_if(mutex.Lock(Brief(random)));
        keep(Handle(std::move(mutex)));
        return;
      }
      case 1: {
        Mutex mutex(session, name);
        auto shared = std::make_shared<std::string>("touched by the callback");
        mutex.LockAsync(Brief(random), [shared](absl::StatusOr<LockGuard> guard) {
          EXPECT_TRUE(!guard.ok() || !shared->empty());
        });
        auto tried = mutex.TryLock();
        if (!tried.ok() || !tried->guard.has_value()) return;
        (void)tried->guard->release_requested();
        return keep(Handle(*std::move(tried->guard)));
      }
      case 2:
        return keep_if(RWMutex(session, name).ReadLock(Brief(random)));
      case 3: {
        auto writer = RWMutex(session, name).WriteLock(Brief(random));
        if (writer.ok() && random() % 2 == 0) return keep_if((*std::move(writer)).Downgrade());
        return keep_if(std::move(writer));
      }
      case 4:
        return keep_if(
            Semaphore(session, name, {.permits = 3}).Acquire(1 + random() % 3, Brief(random)));
      case 5:
        return keep_if(MultiLock(session, {name, name + "b"}).Lock(Brief(random)));
      case 6: {
        ReentrantMutex mutex(session, name);
        LockOwner owner;
        auto outer = mutex.Lock(owner, Brief(random));
        keep_if(mutex.Lock(owner, Brief(random)));
        return keep_if(std::move(outer));
      }
      default:
        return keep_if(WaitQueue(session, name).Join("", {}, Brief(random)));
    }
  }
};

TEST_P(LockLifetimesTest, HandlesDieInAnyOrder) {
  std::atomic<int> left = kLifetimes * kKinds;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(i);
      std::optional<Session> session;
      std::vector<std::unique_ptr<Handle>> alive;
      for (int n = left--; n > 0; n = left--) {
        if (!session.has_value()) session = NewSession();
        Make(n % kKinds, *session, random,
             [&](Handle handle) { alive.push_back(std::make_unique<Handle>(std::move(handle))); });
        while (alive.size() > random() % kAliveMax) {
          std::swap(alive[random() % alive.size()], alive.back());
          if (auto* guard = std::get_if<LockGuard>(alive.back().get()); guard && n % 2 == 0) {
            (void)guard->Unlock();
          }
          alive.pop_back();
        }
        if (random() % 64 != 0) continue;
        // The session goes: under its locks, with them, or before the server knows.
        if (random() % 2 == 0) {
          (void)client().Revoke(session->lease_id());
        } else if (random() % 2 == 0) {
          alive.push_back(std::make_unique<Handle>(*std::move(session)));
        }
        session.reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(left, 0);
  EXPECT_TRUE(WaitFor([&] { return Keys(name_) <= 4; }, absl::Seconds(20)));  // Semaphore's numbers
}

TEST_P(LockLifetimesTest, AGuardMayDieInsideItsOwnSignals) {
  Session session = NewSession();
  for (int i = 0; i < 20; ++i) {
    auto guard = Mutex(session, absl::StrCat(name_, i)).Lock(testing::Soon());
    ASSERT_TRUE(guard.ok());
    auto owned = std::make_shared<std::optional<LockGuard>>(*std::move(guard));
    std::promise<void> died;
    std::stop_token stop = (*owned)->stop_token();
    std::stop_callback on_stop(stop, [owned, &died] {
      owned->reset();
      died.set_value();
    });
    ASSERT_TRUE(client().Delete(Prefix(absl::StrCat(name_, i, "/"))).ok());
    died.get_future().wait();
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, LockLifetimesTest,
                         ::testing::Values(ServerUnderTest{ServerKind::kEtcd, 1},
                                           ServerUnderTest{ServerKind::kConclave, 1}),
                         ServerName);

}  // namespace
}  // namespace conclave
