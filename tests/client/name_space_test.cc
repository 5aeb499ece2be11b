// Clients under a name space against real servers, next to one that sees the whole store.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/election/election.h"
#include "conclave/lock/mutex.h"
#include "conclave/registry/registry.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Collector;
using testing::ServerName;
using testing::ServerUnderTest;

class NameSpaceTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    space_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
    whole_ = Connect("");
    spaced_ = Connect(space_);
    ASSERT_TRUE(whole_.has_value() && spaced_.has_value());
    // What must never be seen or touched: next to the space, and the key that is its prefix.
    for (const std::string& key : Neighbours()) ASSERT_TRUE(whole_->Put(key, "foreign").ok());
  }
  void TearDown() override {
    if (!whole_.has_value()) return;
    for (const std::string& key : Neighbours()) {
      auto kv = whole_->Get(key);
      ASSERT_TRUE(kv.ok() && kv->has_value()) << key << " is gone";
      EXPECT_EQ((*kv)->value, "foreign");
    }
  }
  std::vector<std::string> Neighbours() const {
    std::string after = space_;
    after.back() += 1;
    return {space_.substr(0, space_.size() - 1), space_, after, space_ + "\xff"};
  }
  std::optional<Client> Connect(const std::string& name_space) {
    absl::StatusOr<Client> client =
        Client::Connect({.endpoints = cluster_->endpoints(), .name_space = name_space});
    EXPECT_TRUE(client.ok()) << client.status();
    if (!client.ok()) return std::nullopt;
    return *std::move(client);
  }
  std::string Whole(const std::string& key) {
    auto kv = whole_->Get(space_ + key);
    EXPECT_TRUE(kv.ok()) << kv.status();
    return kv.ok() && kv->has_value() ? (*kv)->value : "(absent)";
  }

  testing::TestCluster* cluster_ = nullptr;
  std::string space_;
  std::optional<Client> whole_;
  std::optional<Client> spaced_;
};

std::vector<std::string> KeysOf(const std::vector<KeyValue>& kvs) {
  std::vector<std::string> keys;
  for (const KeyValue& kv : kvs) keys.push_back(kv.key);
  return keys;
}

TEST_P(NameSpaceTest, TheSpaceLooksLikeAStoreOfItsOwn) {
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(spaced_->Put(key, key).ok());
  EXPECT_EQ(Whole("b"), "b");
  auto kv = spaced_->Get("b");
  ASSERT_TRUE(kv.ok() && kv->has_value()) << kv.status();
  EXPECT_EQ((*kv)->key, "b");

  const std::vector<std::string> all = {"a", "b", "c", "\xff"};
  for (const KeyRange& range : {AllKeys(), Prefix(""), FromKey("a")}) {
    auto result = spaced_->Range(range);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(KeysOf(result->kvs), all);
    EXPECT_EQ(result->count, 4);
  }
  auto put = spaced_->Put("a", "2", {.prev_kv = true});
  ASSERT_TRUE(put.ok() && put->prev_kv.has_value()) << put.status();
  EXPECT_EQ(put->prev_kv->key, "a");
  auto deleted = spaced_->Delete({"a", "d"}, {.prev_kv = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(KeysOf(deleted->prev_kvs), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(absl::IsInvalidArgument(spaced_->Get("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(spaced_->Put("", "").status()));
}

TEST_P(NameSpaceTest, TransactionsStayWithin) {
  auto txn =
      spaced_->Txn()
          .If(Absent("k"), Absent({"k", "l"}))
          .Then(Put("k", "1"), Txn({.conditions = {Absent("n")}, .success = {Put("n", "2")}}))
          .Commit();
  ASSERT_TRUE(txn.ok()) << txn.status();
  EXPECT_TRUE(txn->succeeded && txn->txn(1).succeeded);
  EXPECT_EQ(Whole("k"), "1");
  EXPECT_EQ(Whole("n"), "2");
  txn = spaced_->Txn()
            .If(Value("k") == "1")
            .Then(Delete({"k", "o"}, {.prev_kv = true}), conclave::Range(AllKeys()))
            .Commit();
  ASSERT_TRUE(txn.ok() && txn->succeeded) << txn.status();
  EXPECT_EQ(KeysOf(txn->deleted(0).prev_kvs), (std::vector<std::string>{"k", "n"}));
  EXPECT_EQ(KeysOf(txn->range(1).kvs), (std::vector<std::string>{"\xff"}));
}

TEST_P(NameSpaceTest, WatchesSeeTheSpaceAlone) {
  Collector collector;
  Watch watch =
      spaced_->Watch(AllKeys(), {.list_first = true, .prev_kv = true}, collector.Callback());
  ASSERT_TRUE(collector.WaitFor([](const auto& batches) { return !batches.empty(); }));
  ASSERT_EQ(KeysOf(collector.batches()[0].state), (std::vector<std::string>{"\xff"}));
  ASSERT_TRUE(whole_->Put(space_, "foreign").ok());  // not of the space
  ASSERT_TRUE(whole_->Put(space_ + "k", "1").ok());
  ASSERT_TRUE(spaced_->Delete("k").ok());
  ASSERT_TRUE(collector.WaitForEvents(2));
  const std::vector<WatchEvent> events = collector.events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kv.key, "k");
  EXPECT_EQ(events[1].type, WatchEvent::Type::kDelete);
  EXPECT_EQ(events[1].prev_kv->key, "k");
}

TEST_P(NameSpaceTest, TheKeysOfALease) {
  auto lease = spaced_->Grant(absl::Seconds(30));
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_TRUE(spaced_->Put("mine", "1", {.lease = lease->id}).ok());
  ASSERT_TRUE(whole_->Put("foreign/" + space_, "1", {.lease = lease->id}).ok());
  auto alive = spaced_->TimeToLive(lease->id, {.keys = true});
  ASSERT_TRUE(alive.ok()) << alive.status();
  EXPECT_EQ(alive->keys, std::vector<std::string>{"mine"});
  ASSERT_TRUE(spaced_->Revoke(lease->id).ok());
}

TEST_P(NameSpaceTest, RecipesObeyWithoutKnowing) {
  absl::StatusOr<Session> session = spaced_->OpenSession();
  ASSERT_TRUE(session.ok()) << session.status();
  Mutex mutex(*session, "locks/x");
  auto guard = mutex.Lock({.timeout = absl::Seconds(20)});
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(guard->key().rfind("locks/x/", 0), 0u);
  EXPECT_NE(Whole(guard->key()), "(absent)");
  auto written = spaced_->Txn().If(guard->StillHeld()).Then(Put("state", "x")).Commit();
  ASSERT_TRUE(written.ok() && written->succeeded) << written.status();
  // The same name outside of the space is another lock; the same space is the same lock.
  absl::StatusOr<Session> outside = whole_->OpenSession();
  ASSERT_TRUE(outside.ok()) << outside.status();
  auto other = Mutex(*outside, "locks/x").TryLock();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_TRUE(other->guard.has_value());
  auto same = Mutex(*outside, space_ + "locks/x").TryLock();
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_FALSE(same->guard.has_value());
  ASSERT_TRUE(guard->Unlock().ok());

  auto leader = Election(*spaced_, "leader").Campaign(*session, "me");
  ASSERT_TRUE(leader.ok()) << leader.status();
  auto keys = whole_->Range(Prefix(space_ + "leader/"));
  ASSERT_TRUE(keys.ok() && keys->kvs.size() == 1u) << keys.status();
  EXPECT_EQ(keys->kvs[0].value, "me");

  auto registration = Registry(*spaced_).Register({.service = "svc", .address = "127.0.0.1:80"});
  ASSERT_TRUE(registration.ok()) << registration.status();
  EXPECT_TRUE(testing::WaitFor([this] { return Whole("svc/127.0.0.1:80") != "(absent)"; }));
}

// The Go client of tests/integration, built next to this test.
std::string GoClient() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "go-client").string();
}

TEST_P(NameSpaceTest, GosClientHasTheSameKeys) {
  if (!std::filesystem::exists(GoClient())) GTEST_SKIP() << "the Go client is not built";
  const auto go = [this](std::vector<std::string> args) {
    args.insert(args.begin(), GoClient());
    args.insert(args.begin() + 2, cluster_->JoinedEndpoints());
    auto process = testing::ChildProcess::Start(args, {"GO_CLIENT_NAMESPACE=" + space_});
    EXPECT_TRUE(process.ok()) << process.status();
    if (!process.ok()) return std::string();
    auto code = (*process)->Wait();
    EXPECT_TRUE(code.ok() && *code == 0) << (*process)->Output();
    return (*process)->Output();
  };
  auto registration = Registry(*spaced_).Register({.service = "svc", .address = "127.0.0.1:80"});
  ASSERT_TRUE(registration.ok()) << registration.status();
  ASSERT_TRUE(testing::WaitFor([this] { return Whole("svc/127.0.0.1:80") != "(absent)"; }));
  EXPECT_NE(go({"endpoints", "svc"}).find("svc/127.0.0.1:80 127.0.0.1:80"), std::string::npos);
  go({"put", "from/go", "1"});
  auto kv = spaced_->Get("from/go");
  ASSERT_TRUE(kv.ok() && kv->has_value()) << kv.status();
  EXPECT_EQ((*kv)->value, "1");
  // A lock of theirs that waits, gets its turn, and goes within the space.
  EXPECT_NE(go({"lock", "locks/go"}).find("unlocked"), std::string::npos);
  EXPECT_EQ(go({"kv"}), "ok\n");
}

INSTANTIATE_TEST_SUITE_P(Servers, NameSpaceTest, ::testing::ValuesIn(AllServers()), ServerName);

TEST(NameSpaceOptionsTest, ALimitOfLength) {
  auto client =
      Client::Connect({.endpoints = {"127.0.0.1:1"}, .name_space = std::string(2000, 'x')});
  EXPECT_TRUE(absl::IsInvalidArgument(client.status())) << client.status();
}

}  // namespace
}  // namespace conclave
