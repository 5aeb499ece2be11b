// The recipes on a FakeServer: what happens when things fail, shown in milliseconds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "conclave/discovery/discovery.h"
#include "conclave/election/election.h"
#include "conclave/lock/mutex.h"
#include "conclave/registry/registry.h"
#include "conclave/testing/fake_server.h"

namespace conclave::testing {
namespace {

using ::testing::ElementsAre;

Session Open(const Client& client, absl::Duration ttl) {
  absl::StatusOr<Session> session = client.OpenSession({.ttl = ttl});
  EXPECT_TRUE(session.ok()) << session.status();
  return session.ok() ? *std::move(session) : Session();
}

template <typename T>
bool Ready(std::future<T>& future) {
  return future.wait_for(std::chrono::milliseconds(1)) == std::future_status::ready;
}

// ---- Lock --------------------------------------------------------------------------------------

TEST(LockOnFakeServerTest, AHolderThatIsCutOffKnowsThatBeforeTheNextOneIsGranted) {
  FakeServer server;
  Client first = server.Connect();
  Client second = server.Connect();
  Session held = Open(first, absl::Seconds(10));
  Session waiting = Open(second, absl::Seconds(10));
  Mutex mine(held, "locks/rebuild");
  absl::StatusOr<LockGuard> guard = mine.Lock();
  ASSERT_TRUE(guard.ok());
  Mutex theirs(waiting, "locks/rebuild");
  std::future<absl::StatusOr<LockGuard>> next =
      std::async(std::launch::async, [&] { return theirs.Lock(); });
  ASSERT_TRUE(server.AdvanceUntil([&] { return server.Keys("locks/rebuild/").size() == 2; }));

  server.Partition(first);
  bool both = false;
  ASSERT_TRUE(server.AdvanceUntil([&] {
    both |= Ready(next) && guard->held();
    return Ready(next);
  }));
  EXPECT_FALSE(both);
  EXPECT_TRUE(guard->stop_token().stop_requested());
  absl::StatusOr<LockGuard> granted = next.get();
  ASSERT_TRUE(granted.ok());
  EXPECT_GT(granted->token(), guard->token());
}

TEST(LockOnFakeServerTest, AFrozenHolderIsToldByTheClockAndItsTokenIsFencedOff) {
  FakeServer server;
  Client first = server.Connect();
  Client second = server.Connect();
  Session held = Open(first, absl::Seconds(10));
  Mutex mine(held, "locks/rebuild");
  absl::StatusOr<LockGuard> guard = mine.Lock();
  ASSERT_TRUE(guard.ok());
  server.Freeze(first);
  server.Advance(absl::Seconds(20));
  EXPECT_FALSE(guard->held());
  EXPECT_FALSE(guard->stop_token().stop_requested());  // nothing of it has run
  Session other = Open(second, absl::Seconds(10));
  absl::StatusOr<LockGuard> next = Mutex(other, "locks/rebuild").Lock();
  ASSERT_TRUE(next.ok());
  // What the old holder still writes under its guard is refused.
  absl::StatusOr<TxnResult> late =
      second.Txn().If(guard->StillHeld()).Then(conclave::Put("data", "old")).Commit();
  ASSERT_TRUE(late.ok());
  EXPECT_FALSE(late->succeeded);
  server.Thaw(first);
}

TEST(LockOnFakeServerTest, ALockWhoseAnswerWasLostIsStillGrantedOnceAndLeavesNoKey) {
  FakeServer server({.auto_advance = true});
  Client client = server.Connect();
  Session session = Open(client, absl::Seconds(10));
  server.LoseAnswer("Txn");
  absl::StatusOr<LockGuard> guard = Mutex(session, "locks/a").Lock();
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(server.Keys("locks/a/").size(), 1u);
  EXPECT_TRUE(guard->Unlock().ok());
  EXPECT_EQ(server.Keys("locks/a/").size(), 0u);
}

// ---- Election ----------------------------------------------------------------------------------

TEST(ElectionOnFakeServerTest, ALeaderWhoseLeaseIsRevokedIsTold) {
  FakeServer server;
  Client client = server.Connect();
  Session session = Open(client, absl::Seconds(10));
  Election election(client, "elections/scheduler");
  std::vector<std::string> leaders;
  Observation observation = election.Observe([&](const std::optional<LeaderInfo>& leader) {
    leaders.push_back(leader.has_value() ? leader->proposal : "nobody");
  });
  server.Advance(absl::ZeroDuration());
  absl::StatusOr<Leadership> leadership = election.Campaign(session, "me");
  ASSERT_TRUE(leadership.ok());
  ASSERT_TRUE(server.RevokeLease(session.lease_id()).ok());
  server.Advance(absl::ZeroDuration());
  EXPECT_FALSE(leadership->leading());
  EXPECT_TRUE(leadership->stop_token().stop_requested());
  EXPECT_THAT(leaders, ElementsAre("nobody", "me", "nobody"));
}

TEST(ElectionOnFakeServerTest, ALeaderThatIsCutOffStandsDownBeforeTheNextOneLeads) {
  FakeServer server;
  Client first = server.Connect();
  Client second = server.Connect();
  Session old_session = Open(first, absl::Seconds(8));
  Session new_session = Open(second, absl::Seconds(8));
  absl::StatusOr<Leadership> old_leader =
      Election(first, "elections/scheduler").Campaign(old_session, "old");
  ASSERT_TRUE(old_leader.ok());
  Election election(second, "elections/scheduler");
  std::future<absl::StatusOr<Leadership>> next =
      std::async(std::launch::async, [&] { return election.Campaign(new_session, "new"); });
  ASSERT_TRUE(server.AdvanceUntil([&] { return server.Keys("elections/").size() == 2; }));
  server.Partition(first);
  bool both = false;
  ASSERT_TRUE(server.AdvanceUntil([&] {
    both |= Ready(next) && old_leader->leading();
    return Ready(next);
  }));
  EXPECT_FALSE(both);
  EXPECT_TRUE(old_leader->stop_token().stop_requested());
  absl::StatusOr<std::optional<LeaderInfo>> leader = election.Leader();
  ASSERT_TRUE(leader.ok() && leader->has_value());
  EXPECT_EQ((*leader)->proposal, "new");
  EXPECT_GT((*leader)->term, old_leader->term());
}

// ---- Registry and discovery --------------------------------------------------------------------

struct World {
  FakeServer server;
  Client provider = server.Connect();
  Client consumer = server.Connect();
  Registry registry{provider};
  Discovery discovery{consumer};
};

TEST(RegistryOnFakeServerTest, ARegistrationComesBackAfterAnOutageAndADeletedKey) {
  World world;
  std::vector<RegState> states;
  absl::StatusOr<Registration> registration = world.registry.Register(
      {.service = "billing", .address = "10.0.0.1:80"},
      {.on_state = [&](RegState state, const absl::Status&) { states.push_back(state); }});
  ASSERT_TRUE(registration.ok());
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return world.server.Keys("billing/").size() == 1; }));
  ASSERT_TRUE(world.server.DeleteKey("billing/10.0.0.1:80").ok());
  EXPECT_TRUE(world.server.AdvanceUntil([&] { return world.server.Keys("billing/").size() == 1; },
                                        absl::Seconds(1)));
  world.server.Partition(world.provider);
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return world.server.Keys("billing/").empty(); },
                                        absl::Seconds(11)));
  world.server.Advance(absl::Hours(1));
  world.server.Heal();
  EXPECT_TRUE(world.server.AdvanceUntil([&] { return world.server.Keys("billing/").size() == 1; },
                                        absl::Seconds(10)));
  world.server.Advance(absl::ZeroDuration());
  EXPECT_EQ(states.back(), RegState::kRegistered);
  EXPECT_EQ(registration->state(), RegState::kRegistered);
}

TEST(DiscoveryOnFakeServerTest,
     AnInstanceThatDiesLeavesWithItsLeaseAndTheOthersStayThroughAnOutage) {
  World world;
  Client doomed = world.server.Connect();
  absl::StatusOr<Registration> stays =
      world.registry.Register({.service = "billing", .address = "10.0.0.1:80"});
  absl::StatusOr<Registration> dies =
      Registry(doomed).Register({.service = "billing", .address = "10.0.0.2:80"});
  ASSERT_TRUE(stays.ok() && dies.ok());
  absl::StatusOr<Service> service = world.discovery.Watch("billing");
  ASSERT_TRUE(service.ok());
  const auto count = [&] { return service->snapshot()->instances().size(); };
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return count() == 2; }));

  world.server.Freeze(doomed);
  const absl::Duration before = world.server.elapsed();
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return count() == 1; }, absl::Minutes(1)));
  EXPECT_LE(world.server.elapsed() - before, absl::Seconds(11));

  // While nobody is there to ask, the last view stays, and says how old it is.
  world.server.Kill();
  world.server.Advance(absl::Minutes(10));
  EXPECT_EQ(count(), 1u);
  EXPECT_TRUE(service->snapshot()->stale_since().has_value());
  world.server.Start();
  EXPECT_TRUE(world.server.AdvanceUntil(
      [&] { return count() == 1 && !service->snapshot()->stale_since().has_value(); },
      absl::Minutes(1)));
}

}  // namespace
}  // namespace conclave::testing
