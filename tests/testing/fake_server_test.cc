// FakeServer: what it promises about time, faults and processes.
#include "conclave/testing/fake_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <vector>

namespace conclave::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Names(const std::vector<KeyValue>& kvs) {
  std::vector<std::string> names;
  for (const KeyValue& kv : kvs) names.push_back(kv.key);
  return names;
}

Session Open(const Client& client, absl::Duration ttl) {
  absl::StatusOr<Session> session = client.OpenSession({.ttl = ttl});
  EXPECT_TRUE(session.ok()) << session.status();
  return session.ok() ? *std::move(session) : Session();
}

// ---- Time --------------------------------------------------------------------------------------

// A put that has begun, and gone as far as it can without time, when this returns.
std::future<absl::Status> BeginPut(FakeServer& server, const Client& client, std::string key,
                                   absl::Duration timeout) {
  auto answer = std::make_shared<std::promise<absl::Status>>();
  client.PutAsync({.key = std::move(key), .value = "1"}, {.timeout = timeout},
                  [answer](absl::StatusOr<PutResult> put) { answer->set_value(put.status()); });
  server.Advance(absl::ZeroDuration());
  return answer->get_future();
}

bool Ready(const std::future<absl::Status>& call) {
  return call.wait_for(std::chrono::milliseconds(1)) == std::future_status::ready;
}

TEST(FakeServerTest, ServesAnOrdinaryClientWhileTimeStands) {
  FakeServer server;
  Client client = server.Connect();
  const absl::Duration before = server.elapsed();
  absl::StatusOr<PutResult> put = client.Put("a", "1");
  ASSERT_TRUE(put.ok()) << put.status();
  absl::StatusOr<std::optional<KeyValue>> got = client.Get("a");
  ASSERT_TRUE(got.ok() && got->has_value());
  EXPECT_EQ((*got)->value, "1");
  EXPECT_EQ(server.elapsed(), before);
  EXPECT_EQ(server.Value("a"), "1");
  EXPECT_EQ(server.Value("b"), std::nullopt);
  EXPECT_EQ(server.revision(), put->revision);
}

TEST(FakeServerTest, AnHourOfAKeptLeaseIsOverAtOnceAndTheLeaseStillLives) {
  FakeServer server;
  Client client = server.Connect();
  Session session = Open(client, absl::Seconds(10));
  const absl::Duration before = server.elapsed();
  server.Advance(absl::Hours(1));
  EXPECT_EQ(server.elapsed() - before, absl::Hours(1));
  EXPECT_TRUE(session.alive());
}

TEST(FakeServerTest, ALeaseThatNobodyRenewsEndsWithItsTimeAndNotBefore) {
  FakeServer server;
  Client client = server.Connect();
  absl::StatusOr<GrantResult> lease = client.Grant(absl::Seconds(30));
  ASSERT_TRUE(lease.ok());
  ASSERT_TRUE(client.Put("mine", "1", {.lease = lease->id}).ok());
  server.Advance(absl::Seconds(29));
  EXPECT_THAT(Names(server.Keys()), ElementsAre("mine"));
  absl::StatusOr<std::vector<FakeServer::LeaseInfo>> leases = server.Leases();
  ASSERT_TRUE(leases.ok());
  ASSERT_EQ(leases->size(), 1u);
  EXPECT_EQ(leases->front().granted_ttl, absl::Seconds(30));
  EXPECT_LE(leases->front().remaining_ttl, absl::Seconds(1));
  EXPECT_THAT(leases->front().keys, ElementsAre("mine"));
  EXPECT_TRUE(server.AdvanceUntil([&] { return server.Keys().empty(); }, absl::Seconds(2)));
}

TEST(FakeServerTest, AdvanceUntilStopsAtTheMomentThatItWaitsFor) {
  FakeServer server;
  Client client = server.Connect();
  Session session = Open(client, absl::Seconds(10));
  server.Partition();
  const absl::Duration before = server.elapsed();
  EXPECT_TRUE(server.AdvanceUntil([&] { return !session.alive(); }));
  // The local deadline: TTL less a tenth, from the last acknowledged renewal.
  EXPECT_EQ(server.elapsed() - before, absl::Seconds(9));
  EXPECT_FALSE(server.AdvanceUntil([] { return false; }, absl::Seconds(5)));
  EXPECT_EQ(server.elapsed() - before, absl::Seconds(14));
}

TEST(FakeServerTest, CallbacksHaveRunWhenAdvanceReturns) {
  FakeServer server;
  Client client = server.Connect();
  std::vector<SessionHealth> heard;
  absl::StatusOr<Session> session =
      client.OpenSession({.ttl = absl::Seconds(6),
                          .on_health = [&](SessionHealth health) { heard.push_back(health); }});
  ASSERT_TRUE(session.ok());
  server.Partition();
  server.Advance(absl::Seconds(6));
  EXPECT_THAT(heard, ElementsAre(SessionHealth::kSuspect, SessionHealth::kLost));
  EXPECT_TRUE(session->stop_token().stop_requested());
}

TEST(FakeServerTest, AutoAdvanceLetsACallReachItsDeadlineAtOnce) {
  FakeServer server({.auto_advance = true});
  Client client = server.Connect();
  server.Pause();
  const absl::Duration before = server.elapsed();
  absl::StatusOr<std::optional<KeyValue>> got =
      client.Get("a", {}, {.timeout = absl::Seconds(100)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(got.status()) || absl::IsUnavailable(got.status()))
      << got.status();
  EXPECT_GE(server.elapsed() - before, absl::Seconds(98));
}

TEST(FakeServerTest, WithoutAutoAdvanceACallWaitsForSomebodyWhoMovesTheClock) {
  FakeServer server;
  Client client = server.Connect();
  server.Pause();
  std::future<absl::Status> call = BeginPut(server, client, "a", absl::Seconds(3));
  EXPECT_TRUE(server.AdvanceUntil([&] { return Ready(call); }, absl::Hours(10)));
  const absl::Status status = call.get();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(IsOutcomeUnknown(status));
  server.Resume();
  // It was in the server's queue all the time.
  EXPECT_TRUE(server.AdvanceUntil([&] { return server.Value("a") == "1"; }, absl::Seconds(20)));
}

// ---- Single calls ------------------------------------------------------------------------------

TEST(FakeServerTest, AFailureOnCommandReachesItsMethodOnlyAndAsOftenAsWanted) {
  FakeServer server;
  Client client = server.Connect();
  server.FailNext("Put", absl::PermissionDeniedError("etcdserver: permission denied"), 2);
  EXPECT_TRUE(client.Get("a").ok());
  EXPECT_TRUE(absl::IsPermissionDenied(client.Put("a", "1").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(client.Put("a", "1").status()));
  EXPECT_TRUE(client.Put("a", "1").ok());
}

TEST(FakeServerTest, ALostAnswerAndALostRequestLookTheSameAndAreNot) {
  FakeServer server;
  Client client = server.Connect();
  server.LoseAnswer("Put");
  absl::Status status = client.Put("done", "1").status();
  EXPECT_TRUE(IsOutcomeUnknown(status)) << status;
  EXPECT_EQ(server.Value("done"), "1");

  server.DropNext("Put");
  status = client.Put("not-done", "1").status();
  EXPECT_TRUE(IsOutcomeUnknown(status)) << status;
  EXPECT_EQ(server.Value("not-done"), std::nullopt);
}

TEST(FakeServerTest, AFaultLetsCallsByFirst) {
  FakeServer server;
  Client client = server.Connect();
  server.DropNext("Put", 2);
  EXPECT_TRUE(client.Put("a", "1").ok());
  EXPECT_TRUE(client.Put("a", "2").ok());
  EXPECT_TRUE(IsOutcomeUnknown(client.Put("a", "3").status()));
  EXPECT_TRUE(client.Put("a", "4").ok());
  EXPECT_EQ(server.Value("a"), "4");
}

TEST(FakeServerTest, AReadOfALostAnswerIsAskedAgain) {
  FakeServer server({.auto_advance = true});
  Client client = server.Connect();
  ASSERT_TRUE(client.Put("a", "1").ok());
  server.LoseAnswer("Range");
  absl::StatusOr<std::optional<KeyValue>> got = client.Get("a");
  EXPECT_TRUE(got.ok()) << got.status();
}

// ---- The network -------------------------------------------------------------------------------

TEST(FakeServerTest, WhatWasSentIntoAShortPartitionArrivesAfterIt) {
  FakeServer server;
  Client client = server.Connect();
  server.Partition();
  std::future<absl::Status> call = BeginPut(server, client, "a", absl::Minutes(1));
  server.Advance(absl::Seconds(5));
  EXPECT_EQ(server.Value("a"), std::nullopt);
  server.Heal();
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(server.Value("a"), "1");
}

TEST(FakeServerTest, ALongPartitionBreaksTheConnectionAndAWriteOnItsWayIsUnknown) {
  FakeServer server;
  Client client = server.Connect();
  ASSERT_TRUE(client.Get("a").ok());  // there is a connection
  server.Partition();
  std::future<absl::Status> call = BeginPut(server, client, "a", absl::Hours(1));
  EXPECT_TRUE(server.AdvanceUntil([&] { return Ready(call); }, absl::Hours(1)));
  EXPECT_TRUE(IsOutcomeUnknown(call.get()));
  // What begins now has not been sent, so it is known not to have happened.
  std::future<absl::Status> second = BeginPut(server, client, "b", absl::Seconds(1));
  EXPECT_TRUE(server.AdvanceUntil([&] { return Ready(second); }, absl::Hours(1)));
  const absl::Status late = second.get();
  EXPECT_FALSE(late.ok());
  EXPECT_FALSE(IsOutcomeUnknown(late)) << late;
  server.Heal();
  server.Advance(absl::Seconds(1));
  EXPECT_THAT(server.Keys(), IsEmpty());
  EXPECT_TRUE(client.Put("c", "1").ok());
}

TEST(FakeServerTest, APartitionOfOneClientLeavesTheOthersAlone) {
  FakeServer server;
  Client near = server.Connect();
  Client far = server.Connect();
  Session session = Open(far, absl::Seconds(5));
  server.Partition(far);
  EXPECT_TRUE(near.Put("a", "1").ok());
  server.Advance(absl::Seconds(6));
  EXPECT_FALSE(session.alive());
  EXPECT_TRUE(near.Put("a", "2").ok());
}

TEST(FakeServerTest, AWatchGoesOnOverBrokenConnectionsARestartAndACompaction) {
  FakeServer server;
  Client client = server.Connect();
  std::vector<std::string> heard;
  Watch watch = client.Watch(Prefix("w/"), {}, [&](const WatchBatch& batch) {
    for (const WatchEvent& event : batch.events) heard.push_back(event.kv.value);
    if (batch.resynced) {
      for (const KeyValue& kv : batch.state) heard.push_back("state:" + kv.value);
    }
  });
  server.Advance(absl::Seconds(1));
  ASSERT_TRUE(server.Put("w/a", "1").ok());
  server.BreakConnections();
  ASSERT_TRUE(server.Put("w/a", "2").ok());
  server.Advance(absl::Seconds(3));
  server.Restart();
  ASSERT_TRUE(server.Put("w/a", "3").ok());
  server.Advance(absl::Seconds(3));
  EXPECT_THAT(heard, ElementsAre("1", "2", "3"));

  heard.clear();
  server.Partition(client);
  server.BreakConnections();
  ASSERT_TRUE(server.Put("w/a", "4").ok());
  ASSERT_TRUE(server.Put("w/a", "5").ok());
  ASSERT_TRUE(server.Compact().ok());
  server.Advance(absl::Minutes(1));
  server.Heal();
  server.Advance(absl::Minutes(1));
  EXPECT_THAT(heard, ElementsAre("state:5"));
}

// ---- Processes ---------------------------------------------------------------------------------

TEST(FakeServerTest, ARestartForgetsNothingThatWasAcknowledged) {
  FakeServer server;
  Client client = server.Connect();
  absl::StatusOr<GrantResult> lease = client.Grant(absl::Minutes(1));
  ASSERT_TRUE(lease.ok());
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client.Put("k" + std::to_string(i), "1", {.lease = lease->id}).ok());
  }
  const int64_t revision = server.revision();
  server.Kill();
  EXPECT_THAT(server.Keys(), IsEmpty());
  EXPECT_TRUE(absl::IsFailedPrecondition(server.Put("a", "1")));
  server.Start();
  EXPECT_EQ(server.revision(), revision);
  EXPECT_EQ(server.Keys("k").size(), 100u);
  // The lease has come along, and ends with its time.
  EXPECT_TRUE(server.AdvanceUntil([&] { return server.Keys().empty(); }, absl::Minutes(2)));
}

TEST(FakeServerTest, AKilledServerRefusesAndAWriteIsKnownNotToHaveHappened) {
  FakeServer server({.auto_advance = true});
  Client client = server.Connect();
  server.Kill();
  const absl::Status status = client.Put("a", "1").status();
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(IsOutcomeUnknown(status)) << status;
  EXPECT_TRUE(IsRetryable(status));
}

TEST(FakeServerTest, AnExpiredLeaseIsExpiredByItsTimeAndARevokedOneAtOnce) {
  FakeServer server;
  Client client = server.Connect();
  Session kept = Open(client, absl::Seconds(10));
  Session expired = Open(client, absl::Seconds(10));
  Session revoked = Open(client, absl::Seconds(10));
  const absl::Duration before = server.elapsed();
  ASSERT_TRUE(server.RevokeLease(revoked.lease_id()).ok());
  EXPECT_EQ(server.elapsed(), before);
  ASSERT_TRUE(server.ExpireLease(expired.lease_id()).ok());
  // A session gives its lease up at the local deadline, before the server would end it.
  EXPECT_EQ(server.elapsed() - before, absl::Seconds(9));
  EXPECT_FALSE(expired.alive());
  EXPECT_FALSE(revoked.alive());
  EXPECT_TRUE(kept.alive());
  absl::StatusOr<GrantResult> bare = client.Grant(absl::Seconds(10));
  ASSERT_TRUE(bare.ok());
  ASSERT_TRUE(server.ExpireLease(bare->id).ok());
  EXPECT_GE(server.elapsed() - before, absl::Seconds(19));
  EXPECT_TRUE(absl::IsNotFound(server.ExpireLease(expired.lease_id())));
}

TEST(FakeServerTest, AFrozenClientLosesItsSessionByTheClockAlone) {
  FakeServer server;
  Client client = server.Connect();
  Session session = Open(client, absl::Seconds(10));
  server.Freeze(client);
  server.Advance(absl::Seconds(20));
  EXPECT_FALSE(session.alive());  // from the clock: nothing of the client has run
  EXPECT_FALSE(session.stop_token().stop_requested());
  absl::StatusOr<std::vector<FakeServer::LeaseInfo>> leases = server.Leases();
  ASSERT_TRUE(leases.ok());
  EXPECT_THAT(*leases, IsEmpty());
  server.Thaw(client);
  server.Advance(absl::ZeroDuration());
  EXPECT_TRUE(session.stop_token().stop_requested());
}

TEST(FakeServerTest, AClientMayOutliveItsServer) {
  auto server = std::make_unique<FakeServer>();
  Client client = server->Connect();
  Session session = Open(client, absl::Seconds(10));
  server.reset();
  EXPECT_FALSE(client.Put("a", "1").ok());
  EXPECT_FALSE(client.Get("a").ok());
}

TEST(FakeServerTest, ManyThreadsMayUseItAtOnce) {
  FakeServer server;
  std::vector<std::future<void>> threads;
  for (int i = 0; i < 4; ++i) {
    threads.push_back(std::async(std::launch::async, [&server, i] {
      Client client = server.Connect();
      for (int round = 0; round < 50; ++round) {
        EXPECT_TRUE(client.Put("k" + std::to_string(i), std::to_string(round)).ok());
        if (i == 0) server.Advance(absl::Milliseconds(100));
        EXPECT_FALSE(server.Keys().empty());
      }
    }));
  }
  for (std::future<void>& thread : threads) thread.get();
  EXPECT_EQ(server.Keys().size(), 4u);
}

}  // namespace
}  // namespace conclave::testing
