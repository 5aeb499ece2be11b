// The recipes on a FakeServer: what happens when things fail, shown in milliseconds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/coordination/group.h"
#include "conclave/coordination/queue.h"
#include "conclave/discovery/discovery.h"
#include "conclave/election/election.h"
#include "conclave/lock/mutex.h"
#include "conclave/registry/registry.h"
#include "conclave/testing/fake_server.h"

namespace conclave::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

// ---- Queue -------------------------------------------------------------------------------------

class QueueOnFakeServerTest : public ::testing::Test {
 protected:
  // The first session marks an item, and hears nothing of it until its time is over.
  void TakeWithoutAnAnswer() {
    ASSERT_TRUE(queue_.Push("letter").ok());
    server_.LoseAnswer("Txn", 1);  // the first one looks
    for (int i = 0; i < 40; ++i) server_.LoseAnswer("Txn");
    const absl::StatusOr<std::optional<TakenItem>> taken =
        queue_.TryTake({.timeout = absl::Seconds(3)});
    ASSERT_FALSE(taken.ok());
    // Or the test tests nothing. It may have been taken back already.
    ASSERT_TRUE(server_.AdvanceUntil([&] { return marks_seen_ == 1; }, absl::Seconds(1)));
    server_.ForgetFaults();
  }

  FakeServer server_{{.auto_advance = true}};
  Client first_ = server_.Connect();
  Client second_ = server_.Connect();
  Session session_ = Open(first_, absl::Seconds(30));
  Session other_ = Open(second_, absl::Seconds(30));
  Queue queue_{session_, "mail"};
  std::atomic<int> marks_seen_ = 0;
  Watch marks_ = second_.Watch(Prefix("mail/item-taken/"), {}, [this](const WatchBatch& batch) {
    for (const WatchEvent& event : batch.events)
      if (event.is_create()) ++marks_seen_;
  });
};

TEST_F(QueueOnFakeServerTest, AnItemWhoseTakerGaveUpIsThereForTheNextOne) {
  TakeWithoutAnAnswer();
  EXPECT_TRUE(server_.AdvanceUntil([&] { return server_.Keys("mail/item-taken/").empty(); },
                                   absl::Seconds(20)));
  absl::StatusOr<std::optional<TakenItem>> next = Queue(other_, "mail").TryTake();
  ASSERT_TRUE(next.ok()) << next.status();
  ASSERT_TRUE(next->has_value());
  EXPECT_EQ((*next)->value(), "letter");
  // What takes the first one's mark back leaves the second one's alone.
  server_.Advance(absl::Seconds(20));
  EXPECT_TRUE((*next)->Ack().ok());
  EXPECT_TRUE(session_.alive());
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
  explicit World(const FakeServer::Options& options = {}) : server(options) {}

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

// A list that suddenly lacks most of what was there is believed when a second one, half the guard's
// time later, lacks it too.
TEST(DiscoveryOnFakeServerTest, TheShrinkGuardIsOnTheClock) {
  World world;
  for (int i = 0; i < 10; ++i) {
    const std::string address = "10.0.0." + std::to_string(i) + ":80";
    ASSERT_TRUE(
        world.server.Put(InstanceKey("billing", address), EncodeNamingValue({.address = address}))
            .ok());
  }
  absl::StatusOr<Service> service = world.discovery.Watch("billing");
  ASSERT_TRUE(service.ok());
  const auto count = [&] { return service->snapshot()->instances().size(); };
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return count() == 10; }));

  world.server.Partition(world.consumer);
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(
        world.server.DeleteKey(InstanceKey("billing", "10.0.0." + std::to_string(i) + ":80")).ok());
  }
  ASSERT_TRUE(world.server.Compact().ok());
  world.server.BreakConnections();
  world.server.Heal();
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return service->snapshot()->held() == 8; }));
  const absl::Duration held = world.server.elapsed();
  EXPECT_EQ(count(), 10u);
  ASSERT_TRUE(world.server.AdvanceUntil([&] { return count() == 2; }, absl::Minutes(1)));
  EXPECT_GE(world.server.elapsed() - held, absl::Seconds(14));
  EXPECT_LE(world.server.elapsed() - held, absl::Seconds(16));
}

// ---- Waiting -----------------------------------------------------------------------------------

TEST(WaitingOnFakeServerTest, EveryDeadlineIsOnTheClock) {
  World world({.auto_advance = true});
  const auto takes = [&](absl::Duration expected, const auto& wait) {
    const absl::Duration before = world.server.elapsed();
    EXPECT_TRUE(absl::IsDeadlineExceeded(wait()));
    EXPECT_GE(world.server.elapsed() - before, expected);
    EXPECT_LT(world.server.elapsed() - before, 2 * expected);
  };
  absl::StatusOr<Service> service = world.discovery.Watch("billing");
  ASSERT_TRUE(service.ok());
  takes(absl::Hours(1), [&] {
    return service
        ->Wait([](const Snapshot& now) { return now.instances().size() == 1; },
               {.timeout = absl::Hours(1)})
        .status();
  });
  Session session = Open(world.consumer, absl::Hours(20));
  absl::StatusOr<Leadership> other = Election(world.consumer, "e").Campaign(session, "me");
  ASSERT_TRUE(other.ok());
  absl::StatusOr<Candidate> candidate =
      Election(world.consumer, "e").RunWhileLeader({}, [](Leadership&, std::stop_token) {
        return absl::OkStatus();
      });
  ASSERT_TRUE(candidate.ok());
  takes(absl::Minutes(5), [&] { return candidate->Await({.timeout = absl::Minutes(5)}); });
  world.server.Pause();
  absl::StatusOr<Registration> registration =
      world.registry.Register({.service = "billing", .address = "10.0.0.1:80"});
  ASSERT_TRUE(registration.ok());
  takes(absl::Minutes(2), [&] { return registration->WaitRegistered(absl::Minutes(2)); });
  world.server.Resume();
  EXPECT_TRUE(registration->WaitRegistered(absl::Minutes(2)).ok());
  EXPECT_TRUE(service
                  ->Wait([](const Snapshot& now) { return now.instances().size() == 1; },
                         {.timeout = absl::Minutes(1)})
                  .ok());
}

// ---- Metrics -----------------------------------------------------------------------------------

TEST(MetricsOnFakeServerTest, ClaimsAndRecipesAreCounted) {
  FakeServer server;
  const auto registry = std::make_shared<prometheus::Registry>();
  Client client = server.Connect({.metrics = registry});
  const auto text = [&registry] {
    return prometheus::TextSerializer().Serialize(registry->Collect());
  };
  Session mine = Open(client, absl::Seconds(10));
  Session theirs = Open(client, absl::Seconds(10));
  {
    absl::StatusOr<LockGuard> guard = Mutex(mine, "locks/a").Lock();
    ASSERT_TRUE(guard.ok());
    absl::StatusOr<TryLockResult> busy = Mutex(theirs, "locks/a").TryLock();
    ASSERT_TRUE(busy.ok() && !busy->guard.has_value());
    EXPECT_THAT(text(), HasSubstr("conclave_claims_held{kind=\"mutex\",name=\"\"} 1"));
  }
  EXPECT_THAT(text(), HasSubstr("conclave_claims_held{kind=\"mutex\",name=\"\"} 0"));
  EXPECT_THAT(text(),
              HasSubstr("conclave_claims_total{kind=\"mutex\",name=\"\",outcome=\"acquired\"} 1"));
  EXPECT_THAT(text(),
              HasSubstr("conclave_claims_total{kind=\"mutex\",name=\"\",outcome=\"busy\"} 1"));
  EXPECT_THAT(text(), HasSubstr("conclave_claim_wait_seconds_count{kind=\"mutex\",name=\"\"} 1"));

  absl::StatusOr<Leadership> leader = Election(client, "jobs").Campaign(mine, "me");
  ASSERT_TRUE(leader.ok());
  EXPECT_THAT(text(), HasSubstr("conclave_claims_held{kind=\"election\",name=\"jobs\"} 1"));
  EXPECT_TRUE(server.RevokeLease(mine.lease_id()).ok());
  ASSERT_TRUE(server.AdvanceUntil([&] { return !leader->leading(); }));
  EXPECT_THAT(text(), HasSubstr("conclave_claims_held{kind=\"election\",name=\"jobs\"} 0"));
  EXPECT_THAT(text(), HasSubstr("conclave_claims_lost_total{kind=\"election\",name=\"jobs\"} 1"));

  Queue queue(theirs, "queues/mail");
  ASSERT_TRUE(queue.Push("letter").ok());
  absl::StatusOr<TakenItem> item = queue.Take();
  ASSERT_TRUE(item.ok());
  EXPECT_TRUE(item->Ack().ok());
  absl::StatusOr<Membership> membership = Group(client, "g").Join(theirs, "a");
  ASSERT_TRUE(membership.ok());
  EXPECT_TRUE(membership->Leave().ok());
  for (const std::string series :
       {"conclave_queue_events_total{event=\"pushed\",name=\"queues/mail\"} 1",
        "conclave_queue_events_total{event=\"taken\",name=\"queues/mail\"} 1",
        "conclave_queue_events_total{event=\"acked\",name=\"queues/mail\"} 1",
        "conclave_group_events_total{event=\"joined\",name=\"g\"} 1",
        "conclave_group_events_total{event=\"left\",name=\"g\"} 1"}) {
    EXPECT_THAT(text(), HasSubstr(series));
  }
}

}  // namespace
}  // namespace conclave::testing
