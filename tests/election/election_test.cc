// Elections: succession, observers, and a candidate that loses its lease while it waits.
#include "conclave/election/election.h"

#include <signal.h>

#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/election/leader_tracker.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ChildProcess;
using testing::EtcdctlCommand;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

// The proposals that an observer heard, "-" for nobody.
class Heard {
 public:
  LeaderCallback Callback() {
    return [this](const std::optional<LeaderInfo>& leader) {
      std::lock_guard lock(mutex_);
      proposals_.push_back(leader.has_value() ? leader->proposal : "-");
    };
  }
  std::vector<std::string> proposals() const {
    std::lock_guard lock(mutex_);
    return proposals_;
  }
  bool Becomes(const std::vector<std::string>& expected) const {
    return WaitFor([&] { return proposals() == expected; });
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> proposals_;
};

class ElectionTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    name_ =
        absl::StrCat("elections/", ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  Client& client() { return *client_; }
  Session NewSession(absl::Duration ttl = absl::Seconds(10)) {
    auto session = client().OpenSession({.ttl = ttl});
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : Session();
  }
  size_t Candidates(const Election& election) {
    auto participants = election.Participants();
    return participants.ok() ? participants->size() : 0;
  }
  std::future<absl::StatusOr<Leadership>> CampaignInThread(Election& election,
                                                           const Session& session,
                                                           const std::string& value) {
    return std::async(std::launch::async, [&election, &session, value] {
      return election.Campaign(session, value, {.timeout = absl::Seconds(20)});
    });
  }

  testing::TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string name_;
};

TEST_P(ElectionTest, LeadersFollowEachOtherAndObserversSeeEachChange) {
  Election election(client(), name_);
  Heard heard;
  Observation observation = election.Observe(heard.Callback());
  EXPECT_TRUE(heard.Becomes({"-"}));
  Session a = NewSession(), b = NewSession();
  auto first = election.Campaign(a, "a", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->leading());
  auto waiting = CampaignInThread(election, b, "b");
  ASSERT_TRUE(WaitFor([&] { return Candidates(election) == 2; }));
  auto leader = election.Leader();
  ASSERT_TRUE(leader.ok() && leader->has_value());
  EXPECT_EQ((*leader)->proposal, "a");
  EXPECT_EQ((*leader)->term, first->term());
  EXPECT_EQ((*leader)->lease, a.lease_id());
  ASSERT_TRUE(first->Proclaim("a2").ok());
  EXPECT_TRUE(heard.Becomes({"-", "a", "a2"}));
  ASSERT_TRUE(first->Resign().ok());
  EXPECT_FALSE(first->leading());
  auto second = waiting.get();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_GT(second->term(), first->term());
  EXPECT_EQ(first->Proclaim("a3").code(), absl::StatusCode::kAborted);
  auto fenced = client().Txn().If(second->StillLeader()).Then(Put(name_ + "-x", "")).Commit();
  ASSERT_TRUE(fenced.ok());
  EXPECT_TRUE(fenced->succeeded);
  ASSERT_TRUE(second->Resign().ok());
  EXPECT_TRUE(heard.Becomes({"-", "a", "a2", "b", "-"}));
}

TEST_P(ElectionTest, ObserversHearOfNobodyWhenTheLeadersLeaseGoes) {
  Election election(client(), name_);
  Session session = NewSession();
  auto leader = election.Campaign(session, "a", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(leader.ok());
  Heard heard;
  Observation observation = election.Observe(heard.Callback());
  EXPECT_TRUE(heard.Becomes({"a"}));
  ASSERT_TRUE(client().Revoke(session.lease_id()).ok());
  EXPECT_TRUE(heard.Becomes({"a", "-"}));
  EXPECT_TRUE(WaitFor([&] { return leader->stop_token().stop_requested(); }, absl::Seconds(1)));
  EXPECT_FALSE(leader->leading());
}

TEST_P(ElectionTest, ACandidateWhoseLeaseDiesWhileItWaitsIsToldAndNeverLeads) {
  Election election(client(), name_);
  Session a = NewSession(), b = NewSession(absl::Seconds(30));
  auto first = election.Campaign(a, "a", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(first.ok());
  auto waiting = CampaignInThread(election, b, "b");
  ASSERT_TRUE(WaitFor([&] { return Candidates(election) == 2; }));
  ASSERT_TRUE(client().Revoke(b.lease_id()).ok());
  const absl::Time start = absl::Now();
  EXPECT_EQ(waiting.get().status().code(), absl::StatusCode::kAborted);
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  ASSERT_TRUE(first->Resign().ok());
  auto nobody = election.Leader();
  ASSERT_TRUE(nobody.ok());
  EXPECT_FALSE(nobody->has_value());
}

TEST_P(ElectionTest, ACampaignThatGivesUpLeavesNoKey) {
  Election election(client(), name_);
  Session a = NewSession(), b = NewSession();
  auto first = election.Campaign(a, "a", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(first.ok());
  auto late = election.Campaign(b, "b", {.timeout = absl::Milliseconds(200)});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Candidates(election), 1u);
}

TEST_P(ElectionTest, AProcessThatComesBackKeepsItsLeadership) {
  Election election(client(), name_);
  Session session = NewSession(absl::Seconds(20));
  auto leader = election.Campaign(session, "before", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(leader.ok());
  const int64_t term = leader->term();
  // Its successor, another client, knows the lease; the first one is still there only because a
  // process cannot die halfway.
  auto other = Client::Connect({.endpoints = cluster_->endpoints()});
  ASSERT_TRUE(other.ok());
  auto resumed = other->OpenSession({.lease = session.lease_id()});
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->ttl(), session.ttl());
  Election again(*other, name_);
  auto still = again.CampaignAs(*resumed, {.id = "node-1", .proposal = "after"},
                                {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(still.ok()) << still.status();
  EXPECT_EQ(still->term(), term);
  auto seen = election.Leader();
  ASSERT_TRUE(seen.ok() && seen->has_value());
  EXPECT_EQ((*seen)->proposal, "after");
  EXPECT_EQ((*seen)->id, "node-1");
  EXPECT_EQ(other->OpenSession({.lease = session.lease_id()}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(other->OpenSession({.lease = 0x7ead}).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(ElectionTest, AClientFencedByALeadershipWritesOnlyWhileItLasts) {
  Election election(client(), name_);
  Session session = NewSession();
  auto leader = election.Campaign(session, "a", {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(leader.ok());
  const Client fenced = client().Fenced(*leader);
  const std::string key = name_ + "-plan";
  ASSERT_TRUE(fenced.Put(key, "ours").ok());
  ASSERT_TRUE(client().Delete(leader->StillLeader().range.key).ok());
  EXPECT_EQ(fenced.Put(key, "late").status().code(), absl::StatusCode::kAborted);
  auto plan = client().Get(key);
  ASSERT_TRUE(plan.ok() && plan->has_value());
  EXPECT_EQ((*plan)->value, "ours");
}

TEST_P(ElectionTest, WhoACandidateIsStandsBesideItsKeyAndGoesWithIt) {
  Election election(client(), name_);
  Session a = NewSession(), b = NewSession();
  auto first = election.CampaignAs(a, {.id = "node-1", .proposal = "p", .priority = 7},
                                   {.timeout = absl::Seconds(5)});
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = CampaignInThread(election, b, "q");
  ASSERT_TRUE(WaitFor([&] { return Candidates(election) == 2; }));
  auto all = election.Participants();
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->at(0).id, "node-1");
  EXPECT_EQ(all->at(0).proposal, "p");
  EXPECT_EQ(all->at(0).priority, 7);
  EXPECT_EQ(all->at(1).id, "");
  ASSERT_TRUE(first->Resign().ok());
  ASSERT_TRUE(second.get().ok());
  auto notes = client().Range(Prefix(name_ + "~"));
  ASSERT_TRUE(notes.ok());
  EXPECT_EQ(notes->count, 0);
  EXPECT_EQ(election.CampaignAs(a, {.proposal = "p"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(ElectionTest, TakesPartWithEtcdctl) {
  Election election(client(), name_);
  Session session = NewSession();
  auto theirs = ChildProcess::Start(EtcdctlCommand(*cluster_, {"elect", name_, "etcdctl"}));
  ASSERT_TRUE(theirs.ok());
  ASSERT_TRUE(WaitFor([&] {
    auto leader = election.Leader();
    return leader.ok() && leader->has_value() && (*leader)->proposal == "etcdctl";
  }));
  auto waiting = CampaignInThread(election, session, "ours");
  ASSERT_TRUE(WaitFor([&] { return Candidates(election) == 2; }));
  auto listener = ChildProcess::Start(EtcdctlCommand(*cluster_, {"elect", "-l", name_}));
  ASSERT_TRUE(listener.ok());
  // Its key is there before its campaign has returned to it; until then it takes no signal and
  // would go on leading. Once it has said that it leads, it listens.
  ASSERT_TRUE(WaitFor([&] { return (*theirs)->Output().find("etcdctl") != std::string::npos; }));
  (*theirs)->Signal(SIGINT);
  auto ours = waiting.get();
  ASSERT_TRUE(ours.ok()) << ours.status();
  EXPECT_TRUE(WaitFor([&] { return (*listener)->Output().find("ours") != std::string::npos; }));
}

INSTANTIATE_TEST_SUITE_P(Servers, ElectionTest, ::testing::ValuesIn(AllServers()), ServerName);

class ElectionFaultTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(ElectionFaultTest, ObserversGoOnAfterARestartAndACompaction) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "e");
  Heard heard;
  Observation observation = election.Observe(heard.Callback());
  EXPECT_TRUE(heard.Becomes({"-"}));
  cluster->Kill(0);
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  auto put = client->Put("x", "1", {}, {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_TRUE(client->Compact(put->revision).ok());
  auto session = client->OpenSession({.ttl = absl::Seconds(5)});
  ASSERT_TRUE(session.ok());
  auto leader = election.Campaign(*session, "a", {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(leader.ok()) << leader.status();
  EXPECT_TRUE(heard.Becomes({"-", "a"}));
}

TEST_P(ElectionFaultTest, ALeaderThatCannotRenewStopsBeforeItsLeaseEnds) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "e");
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  ASSERT_TRUE(session.ok());
  auto leader = election.Campaign(*session, "a", {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(leader.ok());
  cluster->Pause(0);
  const absl::Time start = absl::Now();
  ASSERT_TRUE(WaitFor([&] { return leader->stop_token().stop_requested(); }));
  EXPECT_FALSE(leader->leading());
  EXPECT_LT(absl::Now() - start, session->ttl());
  cluster->Resume(0);
}

INSTANTIATE_TEST_SUITE_P(Servers, ElectionFaultTest, ::testing::ValuesIn(SingleServers()),
                         ServerName);

// ---- LeaderTracker
// ---------------------------------------------------------------------------------

WatchEvent Put(const std::string& key, int64_t create, int64_t mod, const std::string& value) {
  return {.kv = {.key = key, .value = value, .create_revision = create, .mod_revision = mod}};
}

WatchEvent Delete(const std::string& key, int64_t mod) {
  return {.type = WatchEvent::Type::kDelete, .kv = {.key = key, .mod_revision = mod}};
}

std::vector<std::string> Names(const std::vector<std::optional<LeaderInfo>>& changes) {
  std::vector<std::string> names;
  for (const auto& change : changes) names.push_back(change.has_value() ? change->proposal : "-");
  return names;
}

using Strings = std::vector<std::string>;

TEST(LeaderTrackerTest, TheOldestKeyLeadsWhateverTheOrderOfNames) {
  LeaderTracker tracker;
  EXPECT_EQ(Names(tracker.Apply({.resynced = true})), Strings{"-"});
  EXPECT_EQ(Names(tracker.Apply({.events = {Put("z", 5, 5, "first"), Put("a", 6, 6, "second")}})),
            Strings{"first"});
  EXPECT_EQ(Names(tracker.Apply({.events = {Put("a", 6, 7, "second, again")}})), Strings{});
  EXPECT_EQ(Names(tracker.Apply({.events = {Delete("z", 8), Delete("a", 9)}})),
            (Strings{"second, again", "-"}));
}

TEST(LeaderTrackerTest, WhatHappensInOneRevisionHappensAtOnce) {
  LeaderTracker tracker;
  tracker.Apply({.resynced = true});
  tracker.Apply({.events = {Put("a", 2, 2, "a")}});
  EXPECT_EQ(Names(tracker.Apply({.events = {Delete("a", 3), Put("b", 3, 3, "b")}})), Strings{"b"});
}

TEST(LeaderTrackerTest, ANewListTellsOnlyWhatIsDifferent) {
  LeaderTracker tracker;
  const KeyValue a{.key = "a", .value = "a", .create_revision = 2, .mod_revision = 2};
  const KeyValue b{.key = "b", .value = "b", .create_revision = 9, .mod_revision = 9};
  EXPECT_EQ(Names(tracker.Apply({.resynced = true, .state = {a}})), Strings{"a"});
  EXPECT_EQ(Names(tracker.Apply({.resynced = true, .state = {b, a}})), Strings{});
  EXPECT_EQ(Names(tracker.Apply({.resynced = true, .state = {b}})), Strings{"b"});
  EXPECT_EQ(Names(tracker.Apply({.resynced = true})), Strings{"-"});
}

}  // namespace
}  // namespace conclave
