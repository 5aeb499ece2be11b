// Mutex: exclusion between threads, sessions, processes and other kinds of clients; and every way
// to lose.
#include "conclave/lock/mutex.h"

#include <signal.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ChildProcess;
using testing::Etcdctl;
using testing::EtcdctlCommand;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

class MutexTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    name_ = absl::StrCat("locks/", ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  Client& client() { return *client_; }
  Session NewSession(absl::Duration ttl = absl::Seconds(10)) {
    auto session = client().OpenSession({.ttl = ttl});
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : Session();
  }
  // How many stand in the queue, holder included.
  size_t QueueLength() {
    auto range = client().Range(Prefix(name_ + "/"), {.count_only = true});
    return range.ok() ? static_cast<size_t>(range->count) : 0;
  }
  using Locked = absl::StatusOr<LockGuard>;
  std::future<Locked> LockInThread(Mutex& mutex, CallOptions call = {}) {
    return std::async(std::launch::async, [&mutex, call] { return mutex.Lock(call); });
  }

  testing::TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string name_;
};

TEST_P(MutexTest, TokensGrowWithEveryHolder) {
  Session a = NewSession(), b = NewSession();
  int64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    Mutex mutex(i % 2 == 0 ? a : b, name_);
    Locked guard = mutex.Lock({.timeout = absl::Seconds(5)});
    ASSERT_TRUE(guard.ok()) << guard.status();
    EXPECT_GT(guard->token(), last);
    last = guard->token();
    EXPECT_TRUE(guard->held());
    auto put = client().Txn().If(guard->StillHeld()).Then(Put(name_ + "-data", "x")).Commit();
    ASSERT_TRUE(put.ok());
    EXPECT_TRUE(put->succeeded);
    EXPECT_TRUE(guard->Unlock().ok());
    EXPECT_FALSE(guard->held());
    EXPECT_TRUE(guard->stop_token().stop_requested());
    EXPECT_TRUE(IsLost(guard->Unlock()));
  }
  EXPECT_EQ(QueueLength(), 0u);
}

TEST_P(MutexTest, TheGuardsEndUnlocks) {
  Session session = NewSession();
  Mutex mutex(session, name_);
  { ASSERT_TRUE(mutex.Lock({.timeout = absl::Seconds(5)}).ok()); }
  EXPECT_TRUE(WaitFor([&] { return QueueLength() == 0; }));
}

TEST_P(MutexTest, TryLockTellsTheHolder) {
  Session a = NewSession(), b = NewSession();
  Mutex first(a, name_, {.info = "nightly rebuild"});
  Mutex second(b, name_);
  auto guard = first.TryLock();
  ASSERT_TRUE(guard.ok()) << guard.status();
  ASSERT_TRUE(guard->guard.has_value());
  auto refused = second.TryLock();
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(refused->guard.has_value());
  ASSERT_TRUE(refused->holder.has_value());
  EXPECT_EQ(refused->holder->info, "nightly rebuild");
  EXPECT_EQ(refused->holder->lease, a.lease_id());
  EXPECT_EQ(refused->holder->token, guard->guard->token());
  EXPECT_NE(refused->holder->holder.find(absl::StrCat(":", getpid())), std::string::npos);
  EXPECT_EQ(QueueLength(), 1u);
  // The same session has it already: its other threads are refused as well.
  Mutex third(a, name_);
  auto local = third.TryLock();
  ASSERT_TRUE(local.ok());
  EXPECT_FALSE(local->guard.has_value());
  ASSERT_TRUE(local->holder.has_value());
  ASSERT_TRUE(guard->guard->Unlock().ok());
  EXPECT_TRUE(second.TryLock()->guard.has_value());
}

TEST_P(MutexTest, WaitersAreServedInOrderAndShownInTheQueue) {
  constexpr int kWaiters = 5;
  Session owner = NewSession();
  Mutex held(owner, name_);
  Locked guard = held.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  std::vector<Session> sessions;
  for (int i = 0; i < kWaiters; ++i) sessions.push_back(NewSession());
  std::vector<int> order;
  std::vector<std::thread> threads;
  for (int i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&, i] {
      Mutex mutex(sessions[i], name_, {.info = absl::StrCat("waiter ", i)});
      Locked mine = mutex.Lock({.timeout = absl::Seconds(20)});
      ASSERT_TRUE(mine.ok()) << mine.status();
      order.push_back(i);  // the lock guards it
      EXPECT_TRUE(mine->Unlock().ok());
    });
    ASSERT_TRUE(WaitFor([&] { return QueueLength() == static_cast<size_t>(i) + 2; }));
  }
  auto queue = held.Queue();
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->size(), kWaiters + 1u);
  EXPECT_EQ((*queue)[0].token, guard->token());
  EXPECT_EQ((*queue)[1].info, "waiter 0");
  ASSERT_TRUE(guard->Unlock().ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_P(MutexTest, ThreadsOfOneSessionExcludeEachOther) {
  Session session = NewSession();
  std::atomic<int> inside = 0;
  std::atomic<int> rounds = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Mutex mutex(session, name_);
      for (int round = 0; round < 5; ++round) {
        Locked guard = mutex.Lock({.timeout = absl::Seconds(20)});
        ASSERT_TRUE(guard.ok()) << guard.status();
        EXPECT_EQ(++inside, 1);
        ++rounds;
        --inside;
        EXPECT_TRUE(guard->Unlock().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rounds, 20);
}

TEST_P(MutexTest, ATimedLockGivesUpAndLeavesNoKey) {
  Session a = NewSession(), b = NewSession();
  Mutex first(a, name_), second(b, name_);
  Locked guard = first.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  const absl::Time start = absl::Now();
  Locked late = second.Lock({.timeout = absl::Milliseconds(200)});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Milliseconds(1200));
  EXPECT_EQ(QueueLength(), 1u);
  std::stop_source stop;
  auto cancelled = LockInThread(second, {.stop = stop.get_token()});
  ASSERT_TRUE(WaitFor([&] { return QueueLength() == 2; }));
  stop.request_stop();
  EXPECT_EQ(cancelled.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(QueueLength(), 1u);
}

TEST_P(MutexTest, AWaiterHearsAtOnceThatItsLeaseIsGone) {
  Session a = NewSession(), b = NewSession(absl::Seconds(30));
  Mutex first(a, name_), second(b, name_);
  Locked guard = first.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  auto waiting = LockInThread(second);
  ASSERT_TRUE(WaitFor([&] { return QueueLength() == 2; }));
  ASSERT_TRUE(client().Revoke(b.lease_id()).ok());
  const absl::Time start = absl::Now();
  EXPECT_TRUE(IsLost(waiting.get().status()));
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  EXPECT_TRUE(guard->held());
}

TEST_P(MutexTest, AHolderHearsAtOnceThatItsKeyIsGone) {
  Session session = NewSession();
  Mutex mutex(session, name_);
  Locked guard = mutex.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  ASSERT_TRUE(client().Delete(guard->key()).ok());
  EXPECT_TRUE(WaitFor([&] { return guard->stop_token().stop_requested(); }, absl::Seconds(1)));
  EXPECT_FALSE(guard->held());
  auto fenced = client().Txn().If(guard->StillHeld()).Then(Put(name_ + "-x", "")).Commit();
  ASSERT_TRUE(fenced.ok());
  EXPECT_FALSE(fenced->succeeded);
  EXPECT_TRUE(IsLost(guard->Unlock()));
}

TEST_P(MutexTest, ALostSessionLosesItsLocks) {
  Session session = NewSession();
  Mutex mutex(session, name_);
  Locked guard = mutex.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  ASSERT_TRUE(session.Close().ok());
  EXPECT_TRUE(WaitFor([&] { return guard->stop_token().stop_requested(); }, absl::Seconds(1)));
  EXPECT_FALSE(guard->held());
  EXPECT_EQ(QueueLength(), 0u);
  EXPECT_TRUE(IsLost(mutex.Lock().status()));
}

TEST_P(MutexTest, ProcessesExcludeEachOther) {
  const std::string path = absl::StrCat(::testing::TempDir(), "conclave_lock_", getpid());
  std::remove(path.c_str());
  std::vector<std::unique_ptr<ChildProcess>> workers;
  constexpr int kWorkers = 3, kRounds = 10;
  for (int i = 0; i < kWorkers; ++i) {
    auto worker = ChildProcess::Start(
        {CONCLAVE_LOCK_WORKER, cluster_->JoinedEndpoints(), name_, std::to_string(kRounds), path});
    ASSERT_TRUE(worker.ok()) << worker.status();
    workers.push_back(*std::move(worker));
  }
  for (auto& worker : workers) {
    auto code = worker->Wait(absl::Seconds(60));
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 0) << worker->Output();
  }
  std::ifstream file(path);
  int64_t number = 0, token = 0, count = 0;
  while (file >> number >> token) EXPECT_EQ(number, ++count);
  EXPECT_EQ(count, kWorkers * kRounds);
  std::remove(path.c_str());
}

TEST_P(MutexTest, APausedHolderCannotWriteUnderItsOldToken) {
  auto holder = ChildProcess::Start(
      {CONCLAVE_LOCK_WORKER, cluster_->JoinedEndpoints(), name_, "hold", "mutex"});
  ASSERT_TRUE(holder.ok()) << holder.status();
  ASSERT_TRUE(WaitFor([&] { return (*holder)->Output() == "holding\n"; })) << (*holder)->Output();
  (*holder)->Signal(SIGSTOP);
  Session session = NewSession();
  Mutex mutex(session, name_);
  Locked guard = mutex.Lock({.timeout = absl::Seconds(20)});  // when the holder's lease has run out
  ASSERT_TRUE(guard.ok()) << guard.status();
  (*holder)->Signal(SIGCONT);
  auto code = (*holder)->Wait();
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
  EXPECT_EQ((*holder)->Output(), "holding\nrefused\n");
  EXPECT_TRUE(guard->held());
}

TEST_P(MutexTest, ExcludesWithEtcdctlLock) {
  Session session = NewSession();
  Mutex mutex(session, name_);
  // While etcdctl holds it we wait; killed, it lets go when its lease of 10 s ends; so it is
  // interrupted.
  auto holder = ChildProcess::Start(EtcdctlCommand(*cluster_, {"lock", name_}));
  ASSERT_TRUE(holder.ok());
  ASSERT_TRUE(WaitFor([&] { return (*holder)->Output().find(name_) != std::string::npos; }));
  auto refused = mutex.TryLock();
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(refused->guard.has_value());
  auto waiting = LockInThread(mutex, {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(WaitFor([&] { return QueueLength() == 2; }));
  (*holder)->Signal(SIGINT);
  Locked guard = waiting.get();
  ASSERT_TRUE(guard.ok()) << guard.status();
  // And the other way round.
  auto waiter = ChildProcess::Start(EtcdctlCommand(*cluster_, {"lock", name_}));
  ASSERT_TRUE(waiter.ok());
  ASSERT_TRUE(WaitFor([&] { return QueueLength() == 2; }));
  EXPECT_EQ((*waiter)->Output(), "");
  ASSERT_TRUE(guard->Unlock().ok());
  EXPECT_TRUE(WaitFor([&] { return (*waiter)->Output().find(name_) != std::string::npos; }));
  (*waiter)->Signal(SIGINT);
  (void)(*waiter)->Wait();
}

INSTANTIATE_TEST_SUITE_P(Servers, MutexTest, ::testing::ValuesIn(AllServers()), ServerName);

class MutexFaultTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(MutexFaultTest, TheHolderStopsBeforeTheLockCanGoToAnother) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  ASSERT_TRUE(session.ok());
  Mutex mutex(*session, "l");
  auto guard = mutex.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  cluster->Pause(0);
  const absl::Time start = absl::Now();
  ASSERT_TRUE(WaitFor([&] { return guard->stop_token().stop_requested(); }));
  EXPECT_LT(absl::Now() - start, session->ttl());
  cluster->Resume(0);
  // Somebody else gets it, with a greater token.
  auto other = client->OpenSession({.ttl = absl::Seconds(2)}, {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(other.ok()) << other.status();
  Mutex theirs(*other, "l");
  auto next = theirs.Lock({.timeout = absl::Seconds(10)});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_GT(next->token(), guard->token());
  EXPECT_TRUE(IsLost(guard->Unlock()));
}

TEST_P(MutexFaultTest, AHeldLockSurvivesARestartOfTheServer) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(6)});
  auto waiting_session = client->OpenSession({.ttl = absl::Seconds(6)});
  ASSERT_TRUE(session.ok() && waiting_session.ok());
  Mutex mutex(*session, "l"), other(*waiting_session, "l");
  auto guard = mutex.Lock({.timeout = absl::Seconds(5)});
  ASSERT_TRUE(guard.ok());
  auto waiting =
      std::async(std::launch::async, [&] { return other.Lock({.timeout = absl::Seconds(30)}); });
  ASSERT_TRUE(WaitFor([&] { return mutex.Queue().value_or(std::vector<LockInfo>{}).size() == 2; }));
  cluster->Kill(0);
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EXPECT_TRUE(guard->held());
  absl::Status unlocked = guard->Unlock({.timeout = absl::Seconds(10)});
  EXPECT_TRUE(unlocked.ok()) << unlocked;
  auto next = waiting.get();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_GT(next->token(), guard->token());
}

INSTANTIATE_TEST_SUITE_P(Servers, MutexFaultTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
