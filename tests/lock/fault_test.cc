// Clusters that lose their leader, and networks that part, under locks of every kind.
#include <atomic>
#include <thread>

#include "conclave/lock/lock.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::Soon;
using testing::TripleServers;
using testing::WaitFor;

// One lock of each kind, by names of their own.
struct AllKinds {
  std::optional<ReadGuard> read;
  std::optional<WriteGuard> write;
  std::optional<PermitGuard> permit;
  std::optional<MultiLockGuard> multi;

  // With a long patience: the holders before must lose their leases first, perhaps.
  absl::Status Take(const Session& session, bool write_what_was_read) {
    const CallOptions call{.timeout = absl::Seconds(60)};
    if (write_what_was_read) {
      auto writer = RWMutex(session, "rw-read").WriteLock(call);
      if (!writer.ok()) return writer.status();
      write.emplace(*std::move(writer));
    } else {
      auto reader = RWMutex(session, "rw-read").ReadLock(call);
      auto writer = RWMutex(session, "rw-write").WriteLock(call);
      if (!reader.ok()) return reader.status();
      if (!writer.ok()) return writer.status();
      read.emplace(*std::move(reader));
      write.emplace(*std::move(writer));
    }
    auto permits = Semaphore(session, "semaphore", {.permits = 3}).Acquire(2, call);
    if (!permits.ok()) return permits.status();
    permit.emplace(*std::move(permits));
    auto both = MultiLock(session, {"multi-1", "multi-2"}).Lock(call);
    if (!both.ok()) return both.status();
    multi.emplace(*std::move(both));
    return absl::OkStatus();
  }
  bool AllHeld() const {
    return (!read || read->held()) && write->held() && permit->held() && multi->held();
  }
  bool NoneHeld() const {
    return (!read || !read->held()) && !write->held() && !permit->held() && !multi->held();
  }
  bool AllStopped() const {
    return (!read || read->stop_token().stop_requested()) && write->stop_token().stop_requested() &&
           permit->stop_token().stop_requested() && multi->stop_token().stop_requested();
  }
};

class LockFaultTest : public ::testing::TestWithParam<ServerUnderTest> {};
class LockLeaderTest : public LockFaultTest {};

TEST_P(LockLeaderTest, AChangeOfLeaderDropsNoLockAndNoPlace) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(20)}, Soon());
  auto waiting_session = client->OpenSession({.ttl = absl::Seconds(20)}, Soon());
  ASSERT_TRUE(session.ok() && waiting_session.ok());
  AllKinds held, next;
  ASSERT_TRUE(held.Take(*session, false).ok());
  std::atomic<bool> came = false;
  std::thread waiter([&] {
    EXPECT_TRUE(next.Take(*waiting_session, /*write_what_was_read=*/true).ok());
    came = true;
  });
  EXPECT_TRUE(WaitFor([&] {
    auto queue = RWMutex(*session, "rw-read").Queue(Soon());
    return queue.ok() && queue->size() == 2;
  }));
  auto leader = cluster->Leader();
  ASSERT_TRUE(leader.ok());
  cluster->Kill(*leader);
  // It has another one when it serves a write again.
  EXPECT_TRUE(
      WaitFor([&] { return client->Put("after", "x", {}, {.timeout = absl::Seconds(2)}).ok(); },
              absl::Seconds(30)));
  EXPECT_TRUE(held.AllHeld());
  EXPECT_FALSE(came);
  const CallOptions call{.timeout = absl::Seconds(30)};
  EXPECT_TRUE(held.read->Unlock(call).ok());
  EXPECT_TRUE(held.write->Unlock(call).ok());
  EXPECT_TRUE(held.permit->Unlock(call).ok());
  EXPECT_TRUE(held.multi->Unlock(call).ok());
  waiter.join();
  ASSERT_TRUE(came);
  EXPECT_TRUE(next.AllHeld());
  EXPECT_GT(next.multi->token(), held.multi->token());
}

INSTANTIATE_TEST_SUITE_P(Servers, LockLeaderTest, ::testing::ValuesIn(TripleServers()), ServerName);

TEST_P(LockFaultTest, WhenTheNetworkPartsTheHolderStopsBeforeOthersBegin) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)}, Soon());
  ASSERT_TRUE(session.ok());
  AllKinds held;
  ASSERT_TRUE(held.Take(*session, false).ok());
  cluster->Pause(0);
  ASSERT_TRUE(WaitFor([&] { return held.AllStopped(); }, absl::Seconds(30)));
  EXPECT_TRUE(held.NoneHeld());
  cluster->Resume(0);
  auto other = client->OpenSession({.ttl = absl::Seconds(20)}, Soon());
  ASSERT_TRUE(other.ok()) << other.status();
  AllKinds next;
  ASSERT_TRUE(next.Take(*other, /*write_what_was_read=*/true).ok());
  EXPECT_TRUE(next.AllHeld());
  EXPECT_GT(next.write->token(), held.read->token());
  EXPECT_GT(next.permit->token(), held.permit->token());
  EXPECT_TRUE(IsLost(held.read->Unlock()));
  EXPECT_TRUE(IsLost(held.permit->Unlock()));
  EXPECT_TRUE(IsLost(held.multi->Unlock()));
}

INSTANTIATE_TEST_SUITE_P(Servers, LockFaultTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
