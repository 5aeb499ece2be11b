// Group against real servers.
#include "conclave/coordination/group.h"

#include <mutex>
#include <set>
#include <vector>

#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::AMoment;
using testing::InThread;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class GroupTest : public testing::RecipeTest {};

// What a watch told: the members as it knows them from the changes alone.
class Followed {
 public:
  void Hear(const GroupChange& change) {
    std::lock_guard lock(mutex_);
    for (const GroupMember& member : change.left) ids_.erase(member.id);
    for (const GroupMember& member : change.joined) ids_.insert(member.id);
    for (const GroupMember& member : change.updated) updated_.push_back(member.data);
    std::set<std::string> all;
    for (const GroupMember& member : change.members) all.insert(member.id);
    consistent_ &= all == ids_;
    ++changes_;
    status_ = change.status;
  }
  bool Becomes(const std::set<std::string>& expected) {
    return WaitFor([&] {
      std::lock_guard lock(mutex_);
      return changes_ > 0 && ids_ == expected && consistent_;
    });
  }
  std::vector<std::string> updated() {
    std::lock_guard lock(mutex_);
    return updated_;
  }
  absl::Status status() {
    std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  std::mutex mutex_;
  std::set<std::string> ids_;
  std::vector<std::string> updated_;
  bool consistent_ = true;
  int changes_ = 0;
  absl::Status status_;
};

TEST_P(GroupTest, MembersJoinChangeAndLeaveAndAWatchFollows) {
  Group group(client(), name_);
  Followed followed;
  GroupWatch watch = group.Watch([&](const GroupChange& change) { followed.Hear(change); });
  EXPECT_TRUE(followed.Becomes({}));
  Session a = NewSession(), b = NewSession();
  auto first = group.Join(a, "one", "1");
  auto second = group.Join(b, "two", "2");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_TRUE(first->alive());
  EXPECT_GT(second->revision(), first->revision());
  EXPECT_TRUE(followed.Becomes({"one", "two"}));
  auto members = group.Members();
  ASSERT_TRUE(members.ok());
  ASSERT_EQ(members->size(), 2u);
  EXPECT_EQ(members->at(0).id, "one");
  EXPECT_EQ(members->at(0).data, "1");
  EXPECT_EQ(members->at(0).lease, a.lease_id());
  ASSERT_TRUE(first->Update("1b").ok());
  EXPECT_TRUE(WaitFor([&] { return followed.updated() == std::vector<std::string>{"1b"}; }));
  auto fenced = client().Txn().If(first->StillMember()).Then(Put(name_ + "-x", "")).Commit();
  ASSERT_TRUE(fenced.ok());
  EXPECT_TRUE(fenced->succeeded);
  ASSERT_TRUE(first->Leave().ok());
  EXPECT_FALSE(first->alive());
  EXPECT_TRUE(first->Leave().ok());
  EXPECT_EQ(first->Update("1c").code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(followed.Becomes({"two"}));
  { Membership gone = *std::move(second); }
  EXPECT_TRUE(followed.Becomes({}));
}

TEST_P(GroupTest, OneWhoseLeaseEndsIsAMemberNoLonger) {
  Group group(client(), name_);
  Session session = NewSession();
  auto member = group.Join(session, "one");
  ASSERT_TRUE(member.ok());
  Followed followed;
  GroupWatch watch = group.Watch([&](const GroupChange& change) { followed.Hear(change); });
  EXPECT_TRUE(followed.Becomes({"one"}));
  ASSERT_TRUE(client().Revoke(session.lease_id()).ok());
  EXPECT_TRUE(followed.Becomes({}));
  EXPECT_TRUE(WaitFor([&] { return member->stop_token().stop_requested(); }));
  EXPECT_FALSE(member->alive());
}

TEST_P(GroupTest, AnIdBelongsToOneSession) {
  Group group(client(), name_);
  Session a = NewSession(), b = NewSession();
  auto first = group.Join(a, "one", "1");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(group.Join(b, "one").status().code(), absl::StatusCode::kAlreadyExists);
  auto again = group.Join(a, "one", "2");
  ASSERT_TRUE(again.ok());
  EXPECT_GT(again->revision(), first->revision());
  EXPECT_EQ(group.Members()->at(0).data, "2");
  // The first one is over: it can neither change the second one nor take it along.
  EXPECT_EQ(first->Update("3").code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(first->Leave().ok());
  EXPECT_EQ(group.Members()->at(0).data, "2");
  ASSERT_TRUE(client().Delete(name_ + "/one").ok());
  EXPECT_EQ(again->Update("3").code(), absl::StatusCode::kAborted);
}

TEST_P(GroupTest, WaitsUntilThereAreEnough) {
  Group group(client(), name_);
  Session session = NewSession();
  EXPECT_TRUE(group.WaitForMembers(0, Soon()).ok());
  EXPECT_EQ(group.WaitForMembers(1, AMoment()).code(), absl::StatusCode::kDeadlineExceeded);
  auto waiting = InThread([&] { return group.WaitForMembers(2, Soon()); });
  auto first = group.Join(session, "one");
  EXPECT_EQ(waiting.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  auto second = group.Join(session, "two");
  EXPECT_TRUE(waiting.get().ok());
}

TEST_P(GroupTest, RefusesWhatCannotBe) {
  Session session = NewSession();
  Group group(client(), name_);
  const auto code = [&](std::string_view id, const std::string& data = "") {
    return group.Join(session, id, data).status().code();
  };
  EXPECT_EQ(code(""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("a/b"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::string("a\0b", 3)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::string(257, 'x')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("one", std::string(Group::kDataMax + 1, 'x')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group.Join(Session(), "one").status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(group.WaitForMembers(-1).code(), absl::StatusCode::kInvalidArgument);
  Group bad(client(), "bad/");
  EXPECT_EQ(bad.Members().status().code(), absl::StatusCode::kInvalidArgument);
  Followed followed;
  GroupWatch watch = bad.Watch([&](const GroupChange& change) { followed.Hear(change); });
  EXPECT_TRUE(
      WaitFor([&] { return followed.status().code() == absl::StatusCode::kInvalidArgument; }));
}

INSTANTIATE_TEST_SUITE_P(Servers, GroupTest, ::testing::ValuesIn(AllServers()), ServerName);

class GroupFaultTest : public ::testing::TestWithParam<testing::ServerUnderTest> {};

TEST_P(GroupFaultTest, AWatchGoesOnAfterARestartAndACompaction) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Group group(*client, "g");
  Followed followed;
  GroupWatch watch = group.Watch([&](const GroupChange& change) { followed.Hear(change); });
  auto session = client->OpenSession({.ttl = absl::Seconds(20)});
  ASSERT_TRUE(session.ok());
  auto first = group.Join(*session, "one");
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(followed.Becomes({"one"}));
  cluster->Kill(0);
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  auto second = group.Join(*session, "two", "", Soon());
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_TRUE(first->Leave(Soon()).ok());
  auto put = client->Put("x", "1", {}, Soon());
  ASSERT_TRUE(put.ok());
  ASSERT_TRUE(client->Compact(put->revision, {}, Soon()).ok());
  EXPECT_TRUE(followed.Becomes({"two"}));
}

INSTANTIATE_TEST_SUITE_P(Servers, GroupFaultTest, ::testing::ValuesIn(testing::SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
