// Faults: members killed, stopped, restarted under calls, watches and sessions.
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "conclave/client/client.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Collector;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::TripleServers;
using testing::WaitFor;

// Writes a counter until told to stop: each number once, in a transaction that takes effect only
// where the number before stands. What may have been done is tried again, however late it may still
// come.
class Writer {
 public:
  Writer(Client client, std::string key) : client_(std::move(client)), key_(std::move(key)) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Writer() { Stop(); }
  int written() const { return written_; }
  int Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return written_;
  }

 private:
  void Run() {
    for (bool settled = true; !stop_ || !settled;) {
      const int next = written_;
      const auto done = client_.Txn()
                            .If(Version(key_) == next)
                            .Then(Put(key_, std::to_string(next)))
                            .Commit({.timeout = absl::Seconds(1)});
      // If the condition does not hold, it was done at an earlier attempt.
      settled = done.ok();
      if (settled) ++written_;
    }
  }

  Client client_;
  const std::string key_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> written_ = 0;
  std::thread thread_;
};

void ExpectCounted(const Collector& seen, int written) {
  const std::vector<WatchEvent> events = seen.events();
  ASSERT_EQ(static_cast<int>(events.size()), written);
  int64_t revision = 0;
  for (int i = 0; i < written; ++i) {
    ASSERT_EQ(events[i].kv.value, std::to_string(i)) << "event " << i;
    ASSERT_GT(events[i].kv.mod_revision, revision);
    revision = events[i].kv.mod_revision;
  }
  for (const WatchBatch& batch : seen.batches()) EXPECT_FALSE(batch.resynced);
}

class FailoverTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(FailoverTest, AWatchResumesWithoutLossOrRepetitionWhenMembersAreKilled) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  auto writing = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok() && writing.ok());
  Collector seen;
  Watch watch = client->Watch("counter", {.from_revision = 1}, seen.Callback());
  Writer writer(*writing, "counter");
  ASSERT_TRUE(seen.WaitForEvents(20));
  for (int victim = 0; victim < cluster->size(); ++victim) {
    cluster->Kill(victim);
    if (cluster->size() > 1) {
      const int before = writer.written();
      EXPECT_TRUE(WaitFor([&] { return writer.written() > before + 20; })) << "no service";
    }
    ASSERT_TRUE(cluster->Restart(victim).ok());
    absl::Status healthy = cluster->WaitAllHealthy();
    ASSERT_TRUE(healthy.ok()) << healthy;
    const int before = writer.written();
    EXPECT_TRUE(WaitFor([&] { return writer.written() > before + 20; })) << "no service";
  }
  const int written = writer.Stop();
  ASSERT_TRUE(seen.WaitForEvents(written));
  ExpectCounted(seen, written);
}

TEST_P(FailoverTest, ASessionSurvivesAShortOutage) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(6)});
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(client->Put("held", "1", {.lease = session->lease_id()}).ok());
  for (int i = 0; i < cluster->size(); ++i) cluster->Kill(i);
  ASSERT_TRUE(WaitFor([&] { return session->health() == SessionHealth::kSuspect; }));
  for (int i = 0; i < cluster->size(); ++i) ASSERT_TRUE(cluster->Restart(i).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EXPECT_TRUE(WaitFor([&] { return session->health() == SessionHealth::kAlive; }));
  EXPECT_FALSE(session->stop_token().stop_requested());
  auto held = client->Get("held");
  ASSERT_TRUE(held.ok());
  EXPECT_TRUE(held->has_value());
}

TEST_P(FailoverTest, ASessionIsLostAtItsLocalDeadlineWhenNobodyAnswers) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  std::mutex mutex;
  std::vector<SessionHealth> heard;
  auto session = client->OpenSession({.ttl = absl::Seconds(2), .on_health = [&](SessionHealth h) {
                                        std::lock_guard lock(mutex);
                                        heard.push_back(h);
                                      }});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Time start = absl::Now();
  for (int i = 0; i < cluster->size(); ++i) cluster->Pause(i);
  ASSERT_TRUE(WaitFor([&] { return session->stop_token().stop_requested(); }));
  EXPECT_LT(absl::Now() - start, session->ttl());
  EXPECT_FALSE(session->alive());
  EXPECT_TRUE(WaitFor([&] {
    std::lock_guard lock(mutex);
    return heard == std::vector{SessionHealth::kSuspect, SessionHealth::kLost};
  }));
  for (int i = 0; i < cluster->size(); ++i) cluster->Resume(i);
}

TEST_P(FailoverTest, ASessionEndsAtOnceWhenItsLeaseIsRevoked) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(3)});
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(client->Revoke(session->lease_id()).ok());
  EXPECT_TRUE(WaitFor([&] { return session->health() == SessionHealth::kLost; }, absl::Seconds(2)));
  EXPECT_TRUE(session->Close().ok());
}

TEST_P(FailoverTest, ManySessionsLiveOnOneStream) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  std::vector<Session> sessions;
  for (int i = 0; i < 50; ++i) {
    auto session = client->OpenSession({.ttl = absl::Seconds(2)});
    ASSERT_TRUE(session.ok()) << session.status();
    sessions.push_back(*std::move(session));
  }
  // Twice the TTL.
  const absl::Time end = absl::Now() + absl::Seconds(4);
  EXPECT_FALSE(WaitFor(
      [&] {
        for (const Session& session : sessions) {
          if (!session.alive()) return true;
        }
        return false;
      },
      end - absl::Now()));
  const LeaseId lease = sessions[0].lease_id();
  ASSERT_TRUE(sessions[0].Close().ok());
  auto ttl = client->TimeToLive(lease);
  ASSERT_TRUE(ttl.ok());
  EXPECT_FALSE(ttl->exists());
}

INSTANTIATE_TEST_SUITE_P(Servers, FailoverTest, ::testing::ValuesIn(AllServers()), ServerName);

class HungMemberTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(HungMemberTest, CallsWatchesAndSessionsLeaveAStoppedMember) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints(),
                                 .watch_silence = absl::Seconds(1),
                                 .watch_answer_timeout = absl::Seconds(1)});
  auto healthy = Client::Connect({.endpoints = {cluster->endpoint(0), cluster->endpoint(1)}});
  ASSERT_TRUE(client.ok() && healthy.ok());
  // Watches until one surely hangs on the member that will stop: one stream per client.
  std::vector<Client> clients;
  std::vector<std::unique_ptr<Collector>> seen;
  std::vector<Watch> watches;
  std::vector<Session> sessions;
  for (int i = 0; i < 6; ++i) {
    auto each = Client::Connect({.endpoints = cluster->endpoints(),
                                 .watch_silence = absl::Seconds(1),
                                 .watch_answer_timeout = absl::Seconds(1)});
    ASSERT_TRUE(each.ok());
    clients.push_back(*each);
    seen.push_back(std::make_unique<Collector>());
    watches.push_back(each->Watch("k", {.list_first = true}, seen.back()->Callback()));
    auto session = each->OpenSession({.ttl = absl::Seconds(4)});
    ASSERT_TRUE(session.ok());
    sessions.push_back(*std::move(session));
    ASSERT_TRUE(seen.back()->WaitFor([](const auto& batches) { return !batches.empty(); }));
  }
  cluster->Pause(2);
  // Every read comes through, whichever member it is sent to first.
  for (int i = 0; i < 12; ++i) {
    auto kv = client->Get("k", {}, {.timeout = absl::Seconds(6)});
    EXPECT_TRUE(kv.ok()) << kv.status();
  }
  ASSERT_TRUE(healthy->Put("k", "1", {}, {.timeout = absl::Seconds(10)}).ok());
  for (auto& collector : seen) EXPECT_TRUE(collector->WaitForEvents(1));
  // And through another lease's lifetime all sessions are there.
  EXPECT_FALSE(WaitFor(
      [&] {
        for (const Session& session : sessions) {
          if (!session.alive()) return true;
        }
        return false;
      },
      absl::Seconds(4)));
  cluster->Resume(2);
}

TEST_P(HungMemberTest, AWriteToAStoppedMemberIsReportedAsUnknownNotRepeated) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = {cluster->endpoint(0)}});
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->Put("n", "0").ok());
  cluster->Pause(0);
  auto put = client->Put("n", "1", {}, {.timeout = absl::Milliseconds(500)});
  ASSERT_FALSE(put.ok());
  EXPECT_EQ(put.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(IsOutcomeUnknown(put.status())) << put.status();
  cluster->Resume(0);
  auto kv = client->Get("n", {}, {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_LE((*kv)->version, 2);
}

TEST_P(HungMemberTest, ServiceGoesOnWhenTheLeaderIsKilled) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  auto leader = cluster->Leader();
  ASSERT_TRUE(leader.ok());
  cluster->Kill(*leader);
  ASSERT_TRUE(
      WaitFor([&] { return client->Put("k", "1", {}, {.timeout = absl::Seconds(2)}).ok(); }));
  for (int i = 0; i < 20; ++i) {
    auto put = client->Put("k", "2");
    EXPECT_TRUE(put.ok()) << put.status();
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, HungMemberTest, ::testing::ValuesIn(TripleServers()), ServerName);

// ---- A member that has lost its quorum
// -----------------------------------------------------------

class LeaderlessTest : public ::testing::TestWithParam<ServerUnderTest> {};

// The member answers, but has no leader: the other two of its cluster are dead. Beside it the
// client knows a healthy one, of a cluster of its own, so that a network need not be cut.
TEST_P(LeaderlessTest, CallsWatchesAndSessionsLeaveAMemberThatAnswersButHasNoLeader) {
  CONCLAVE_START_CLUSTER(lone, ServerUnderTest{.kind = GetParam().kind, .members = 3});
  CONCLAVE_START_CLUSTER(whole, GetParam());
  lone->Kill(1);
  lone->Kill(2);
  auto probe = Client::Connect({.endpoints = {lone->endpoint(0)}});
  ASSERT_TRUE(probe.ok());
  ASSERT_TRUE(WaitFor([&] {
    absl::Status status = probe->Get("k", {}, {.timeout = absl::Milliseconds(500)}).status();
    std::optional<ErrorDetail> detail = GetErrorDetail(status);
    return detail.has_value() && detail->server_error == "etcdserver: no leader";
  }));
  EXPECT_TRUE(probe->Get("k", {.serializable = true}).ok()) << "it does answer";

  std::vector<Client> clients;
  std::vector<std::unique_ptr<Collector>> seen;
  std::vector<Watch> watches;
  std::vector<Session> sessions;
  for (int i = 0; i < 6; ++i) {
    auto client = Client::Connect({.endpoints = {lone->endpoint(0), whole->endpoint(0)}});
    ASSERT_TRUE(client.ok());
    clients.push_back(*client);
    seen.push_back(std::make_unique<Collector>());
    watches.push_back(client->Watch("k", {.list_first = true}, seen.back()->Callback()));
    auto session = client->OpenSession({.ttl = absl::Seconds(3)});
    ASSERT_TRUE(session.ok()) << session.status();
    sessions.push_back(*std::move(session));
    for (int call = 0; call < 4; ++call) {
      auto put = client->Put("other", "1", {}, {.timeout = absl::Seconds(3)});
      EXPECT_TRUE(put.ok()) << put.status();
      auto kv = client->Get("other", {}, {.timeout = absl::Seconds(3)});
      EXPECT_TRUE(kv.ok() && kv->has_value()) << kv.status();
    }
  }
  for (auto& collector : seen) {
    ASSERT_TRUE(collector->WaitFor([](const auto& batches) { return !batches.empty(); }));
  }
  ASSERT_TRUE(clients[0].Put("k", "1").ok());
  for (auto& collector : seen) EXPECT_TRUE(collector->WaitForEvents(1));
  // Through more than a lease's lifetime no session is lost, wherever its renewals go first.
  EXPECT_FALSE(WaitFor(
      [&] {
        for (const Session& session : sessions) {
          if (!session.alive()) return true;
        }
        return false;
      },
      absl::Seconds(4)));
}

INSTANTIATE_TEST_SUITE_P(Servers, LeaderlessTest, ::testing::ValuesIn(testing::SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
