// Clients that write only while a lock or a leadership holds, against real servers.
#include <string>

#include "absl/synchronization/notification.h"
#include "conclave/client/client.h"
#include "conclave/election/election.h"
#include "conclave/lock/mutex.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;

class FencedTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
    absl::StatusOr<Client> client =
        Client::Connect({.endpoints = cluster->endpoints(), .name_space = prefix_});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    absl::StatusOr<Session> session = client_->OpenSession();
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
  }
  std::string ValueOf(const std::string& key) {
    auto kv = client_->Get(key);
    EXPECT_TRUE(kv.ok()) << kv.status();
    return kv.ok() && kv->has_value() ? (*kv)->value : "(absent)";
  }
  // The results of every write through a fence that has fallen; none may have happened.
  void ExpectFallen(const Client& fenced) {
    ASSERT_TRUE(client_->Put("k", "old").ok());
    for (const absl::Status& status :
         {fenced.Put("k", "stale").status(), fenced.Delete("k").status(),
          fenced.Txn().If(Absent("k")).Then(Get("k")).Else(Put("k", "else")).Commit().status()}) {
      EXPECT_TRUE(IsLost(status)) << status;
      EXPECT_FALSE(IsOutcomeUnknown(status));
    }
    EXPECT_EQ(ValueOf("k"), "old");
  }

  std::string prefix_;
  std::optional<Client> client_;
  Session session_;
};

TEST_P(FencedTest, WritesGoThroughWhileTheLockIsHeldAndComeBackWithTheirResults) {
  auto guard = Mutex(session_, "lock").Lock({.timeout = absl::Seconds(20)});
  ASSERT_TRUE(guard.ok()) << guard.status();
  const Client fenced = client_->Fenced(*guard);
  auto put = fenced.Put("k", "1");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_GT(put->revision, guard->token());
  put = fenced.Put("k", "2", {.prev_kv = true});
  ASSERT_TRUE(put.ok() && put->prev_kv.has_value()) << put.status();
  EXPECT_EQ(put->prev_kv->value, "1");
  auto txn = fenced.Txn().If(Value("k") == "2").Then(Put("k", "3"), Get("k")).Commit();
  ASSERT_TRUE(txn.ok() && txn->succeeded) << txn.status();
  EXPECT_EQ(txn->get(1)->value, "3");
  // A condition of the user's own that fails is no failed fence.
  txn = fenced.Txn().If(Value("k") == "2").Else(Put("k", "4"), Get("k")).Commit();
  ASSERT_TRUE(txn.ok()) << txn.status();
  EXPECT_FALSE(txn->succeeded);
  EXPECT_EQ(txn->get(1)->value, "4");
  auto deleted = fenced.Delete("k", {.prev_kv = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted, 1);
  EXPECT_EQ(deleted->prev_kvs.at(0).value, "4");

  ASSERT_TRUE(guard->Unlock().ok());
  ExpectFallen(fenced);
  EXPECT_TRUE(fenced.Get("k").ok()) << "reads are not fenced";
  EXPECT_TRUE(fenced.Txn().Then(Get("k")).Commit().ok());
}

TEST_P(FencedTest, ALockWhoseKeyWasDeletedOrWhoseLeaseIsGone) {
  auto guard = Mutex(session_, "lock").Lock({.timeout = absl::Seconds(20)});
  ASSERT_TRUE(guard.ok()) << guard.status();
  ASSERT_TRUE(client_->Delete(guard->key()).ok());
  ExpectFallen(client_->Fenced(*guard));
  auto second = client_->OpenSession();
  ASSERT_TRUE(second.ok()) << second.status();
  auto other = Mutex(*second, "lock").Lock({.timeout = absl::Seconds(20)});
  ASSERT_TRUE(other.ok()) << other.status();
  const Client fenced = client_->Fenced(*other);
  ASSERT_TRUE(fenced.Put("k", "mine").ok());
  ASSERT_TRUE(client_->Revoke(second->lease_id()).ok());
  ExpectFallen(fenced);
}

TEST_P(FencedTest, ByALeadershipByConditionsAndByBoth) {
  auto leader = Election(*client_, "leader").Campaign(session_, "me");
  ASSERT_TRUE(leader.ok()) << leader.status();
  const Client leading = client_->Fenced(*leader);
  ASSERT_TRUE(leading.Put("k", "1").ok());
  const Client both = leading.Fenced(Absent("freeze"));
  ASSERT_TRUE(both.Put("k", "2").ok());
  ASSERT_TRUE(client_->Put("freeze", "").ok());
  ASSERT_TRUE(leading.Put("k", "3").ok());
  ExpectFallen(both);
  ASSERT_TRUE(client_->Delete("freeze").ok());
  ASSERT_TRUE(both.Put("k", "4").ok());
  ASSERT_TRUE(leader->Resign().ok());
  ExpectFallen(leading);
  ExpectFallen(both);
}

TEST_P(FencedTest, AsynchronousWritesAndWhatCannotBeFenced) {
  const Client fenced = client_->Fenced(Present("never"));
  absl::Status put, deleted, txn;
  absl::Notification done[3];
  fenced.PutAsync({.key = "k", .value = "v"}, {}, [&](const absl::StatusOr<PutResult>& result) {
    put = result.status();
    done[0].Notify();
  });
  fenced.DeleteAsync({.range = "k"}, {}, [&](const absl::StatusOr<DeleteResult>& result) {
    deleted = result.status();
    done[1].Notify();
  });
  fenced.TxnAsync({.success = {Put("k", "v")}}, {}, [&](const absl::StatusOr<TxnResult>& result) {
    txn = result.status();
    done[2].Notify();
  });
  for (absl::Notification& each : done) each.WaitForNotification();
  for (const absl::Status& status : {put, deleted, txn}) {
    EXPECT_TRUE(absl::IsAborted(status)) << status;
  }
  EXPECT_EQ(ValueOf("k"), "(absent)");
  EXPECT_TRUE(absl::IsFailedPrecondition(fenced.Revoke(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(fenced.Compact(1)));
}

INSTANTIATE_TEST_SUITE_P(Servers, FencedTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
