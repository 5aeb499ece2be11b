// KV, transactions and leases through the client, against real servers.
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;

class KvTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
  }
  std::string Key(const std::string& name) const { return prefix_ + name; }
  Client& client() { return *client_; }

  testing::TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string prefix_;
};

TEST_P(KvTest, PutsAndGets) {
  auto absent = client().Get(Key("a"));
  ASSERT_TRUE(absent.ok()) << absent.status();
  EXPECT_FALSE(absent->has_value());
  auto put = client().Put(Key("a"), "1");
  ASSERT_TRUE(put.ok()) << put.status();
  auto again = client().Put(Key("a"), "2", {.prev_kv = true});
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_TRUE(again->prev_kv.has_value());
  EXPECT_EQ(again->prev_kv->value, "1");
  EXPECT_EQ(again->revision, put->revision + 1);
  auto kv = client().Get(Key("a"));
  ASSERT_TRUE(kv.ok() && kv->has_value()) << kv.status();
  EXPECT_EQ((*kv)->value, "2");
  EXPECT_EQ((*kv)->version, 2);
  EXPECT_EQ((*kv)->create_revision, put->revision);
  auto old = client().Get(Key("a"), {.revision = put->revision});
  ASSERT_TRUE(old.ok() && old->has_value()) << old.status();
  EXPECT_EQ((*old)->value, "1");
}

TEST_P(KvTest, ValuesMayHoldAnyBytes) {
  const std::string bytes("\0\xff\n\x80", 4);
  ASSERT_TRUE(client().Put(Key(bytes), bytes).ok());
  auto kv = client().Get(Key(bytes));
  ASSERT_TRUE(kv.ok() && kv->has_value());
  EXPECT_EQ((*kv)->value, bytes);
}

TEST_P(KvTest, RangesSortLimitAndCount) {
  for (const char* name : {"b", "a", "c", "d"}) ASSERT_TRUE(client().Put(Key(name), name).ok());
  auto range = client().Range(Prefix(prefix_), {.limit = 2, .sort_order = SortOrder::kDescend});
  ASSERT_TRUE(range.ok()) << range.status();
  ASSERT_EQ(range->kvs.size(), 2u);
  EXPECT_EQ(range->kvs[0].key, Key("d"));
  EXPECT_EQ(range->kvs[1].key, Key("c"));
  EXPECT_EQ(range->count, 4);
  EXPECT_TRUE(range->more);
  auto by_creation = client().Range(Prefix(prefix_), {.sort_order = SortOrder::kAscend,
                                                      .sort_target = SortTarget::kCreateRevision});
  ASSERT_TRUE(by_creation.ok());
  EXPECT_EQ(by_creation->kvs[0].key, Key("b"));
  auto count = client().Range({Key("b"), Key("d")}, {.count_only = true});
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(count->count, 2);
  EXPECT_TRUE(count->kvs.empty());
  auto keys = client().Range(Prefix(prefix_), {.serializable = true, .keys_only = true});
  ASSERT_TRUE(keys.ok());
}

TEST_P(KvTest, Deletes) {
  ASSERT_TRUE(client().Put(Key("a"), "1").ok());
  ASSERT_TRUE(client().Put(Key("b"), "2").ok());
  auto deleted = client().Delete(Prefix(prefix_), {.prev_kv = true});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted, 2);
  ASSERT_EQ(deleted->prev_kvs.size(), 2u);
  EXPECT_EQ(deleted->prev_kvs[0].value, "1");
}

TEST_P(KvTest, TransactionsTakeOneBranch) {
  auto put = client().Put(Key("a"), "1");
  ASSERT_TRUE(put.ok());
  auto txn = client()
                 .Txn()
                 .If(ModRevision(Key("a")) == put->revision, Absent(Key("b")),
                     Value(Key("a")) == "1", Version(Key("a")) < 2, LeaseOf(Key("a")) == 0)
                 .Then(Put(Key("a"), "2"), Get(Key("a")), Delete(Key("z")))
                 .Else(Get(Key("a")))
                 .Commit();
  ASSERT_TRUE(txn.ok()) << txn.status();
  EXPECT_TRUE(txn->succeeded);
  ASSERT_NE(txn->get(1), nullptr);
  EXPECT_EQ(txn->get(1)->value, "2");
  EXPECT_EQ(txn->deleted(2).deleted, 0);
  auto other =
      client().Txn().If(Present(Key("b"))).Then(Put(Key("x"), "")).Else(Get(Key("b"))).Commit();
  ASSERT_TRUE(other.ok());
  EXPECT_FALSE(other->succeeded);
  EXPECT_EQ(other->get(0), nullptr);
}

TEST_P(KvTest, ServerErrorsKeepTheirTextAndCode) {
  auto put = client().Put(Key("a"), "1", {.lease = 0x7eadbeef});
  ASSERT_FALSE(put.ok());
  EXPECT_EQ(put.status().code(), absl::StatusCode::kNotFound);
  std::optional<ErrorDetail> detail = GetErrorDetail(put.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->server_error, "etcdserver: requested lease not found");
  EXPECT_EQ(detail->outcome, Outcome::kNotExecuted);
  EXPECT_FALSE(detail->retryable);
  auto future = client().Get(Key("a"), {.revision = int64_t{1} << 60});
  EXPECT_EQ(future.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client().Put("", "1").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(KvTest, CompactionForgetsOldRevisions) {
  auto first = client().Put(Key("a"), "1");
  auto second = client().Put(Key("a"), "2");
  ASSERT_TRUE(first.ok() && second.ok());
  absl::Status compacted = client().Compact(second->revision, {.physical = true});
  ASSERT_TRUE(compacted.ok()) << compacted;
  auto old = client().Get(Key("a"), {.revision = first->revision});
  EXPECT_EQ(old.status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(KvTest, LeasesHoldKeysUntilTheyAreRevoked) {
  auto lease = client().Grant(absl::Seconds(30));
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_TRUE(client().Put(Key("a"), "1", {.lease = lease->id}).ok());
  auto ttl = client().TimeToLive(lease->id, {.keys = true});
  ASSERT_TRUE(ttl.ok()) << ttl.status();
  EXPECT_TRUE(ttl->exists());
  EXPECT_EQ(ttl->granted, absl::Seconds(30));
  EXPECT_EQ(ttl->keys, std::vector<std::string>{Key("a")});
  auto renewed = client().KeepAliveOnce(lease->id);
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_EQ(*renewed, absl::Seconds(30));
  auto all = client().Leases();
  ASSERT_TRUE(all.ok());
  EXPECT_NE(std::find(all->begin(), all->end(), lease->id), all->end());
  ASSERT_TRUE(client().Revoke(lease->id).ok());
  auto gone = client().Get(Key("a"));
  ASSERT_TRUE(gone.ok());
  EXPECT_FALSE(gone->has_value());
  EXPECT_EQ(client().KeepAliveOnce(lease->id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client().Revoke(lease->id).code(), absl::StatusCode::kNotFound);
  auto none = client().TimeToLive(lease->id);
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->exists());
  EXPECT_FALSE(client().Grant(absl::Milliseconds(10)).ok());
}

TEST_P(KvTest, AsynchronousCallsFinishOnTheCallbackThread) {
  absl::Notification done;
  std::thread::id thread;
  client().PutAsync({.key = Key("a"), .value = "1"}, {}, [&](absl::StatusOr<PutResult> put) {
    EXPECT_TRUE(put.ok()) << put.status();
    thread = std::this_thread::get_id();
    // A blocking call is allowed here.
    auto kv = client().Get(Key("a"));
    EXPECT_TRUE(kv.ok() && kv->has_value());
    done.Notify();
  });
  done.WaitForNotification();
  absl::Notification ranged;
  client().RangeAsync({.range = Key("a")}, {}, [&](absl::StatusOr<RangeResult> range) {
    EXPECT_TRUE(range.ok());
    EXPECT_EQ(std::this_thread::get_id(), thread);
    ranged.Notify();
  });
  ranged.WaitForNotification();
}

TEST_P(KvTest, ManyThreadsShareOneClient) {
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string key = Key(std::to_string(t));
        if (!client().Put(key, std::to_string(i)).ok()) ++failures;
        auto kv = client().Get(key);
        if (!kv.ok() || !kv->has_value() || (*kv)->value != std::to_string(i)) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

TEST_P(KvTest, TellsAboutTheCluster) {
  auto members = client().MemberList();
  ASSERT_TRUE(members.ok()) << members.status();
  EXPECT_EQ(static_cast<int>(members->size()), cluster_->size());
  auto status = client().Status(client().endpoints()[0]);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_NE(status->leader, 0u);
  EXPECT_FALSE(client().Status("1.2.3.4:5").ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, KvTest, ::testing::ValuesIn(AllServers()), ServerName);

// ---- Without a server
// ------------------------------------------------------------------------------

TEST(ConnectTest, RefusesBadOptions) {
  for (const char* bad : {"", "host", "host:", ":1", "host:0", "host:70000", "ftp://h:1",
                          "::1:2379", "h:1/x", "a b:1"}) {
    auto client = Client::Connect({.endpoints = {bad}});
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(Client::Connect({}).ok());
  EXPECT_TRUE(Client::Connect({.endpoints = {"http://h:1", "[::1]:2379", "h:1/"}}).ok());
}

TEST(ConnectTest, AnUnreachableClusterFailsCallsAtTheirDeadline) {
  auto client =
      Client::Connect({.endpoints = {"127.0.0.1:" + std::to_string(testing::FreePort())}});
  ASSERT_TRUE(client.ok());
  const absl::Time start = absl::Now();
  auto put = client->Put("a", "1", {}, {.timeout = absl::Milliseconds(300)});
  EXPECT_EQ(put.status().code(), absl::StatusCode::kDeadlineExceeded) << put.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  // It never left this process.
  EXPECT_FALSE(IsOutcomeUnknown(put.status())) << put.status();
  EXPECT_TRUE(IsRetryable(put.status()));
}

TEST(ConnectTest, AStopEndsACall) {
  auto client =
      Client::Connect({.endpoints = {"127.0.0.1:" + std::to_string(testing::FreePort())}});
  ASSERT_TRUE(client.ok());
  std::stop_source stop;
  auto get = std::async(std::launch::async, [&] {
    return client->Get("a", {}, {.timeout = absl::Seconds(60), .stop = stop.get_token()});
  });
  stop.request_stop();
  EXPECT_EQ(get.get().status().code(), absl::StatusCode::kCancelled);
}

TEST(ConnectTest, ClientsMayGoInTheirOwnCallback) {
  auto client =
      Client::Connect({.endpoints = {"127.0.0.1:" + std::to_string(testing::FreePort())}});
  ASSERT_TRUE(client.ok());
  auto last = std::make_unique<Client>(*std::move(client));
  client = absl::CancelledError();
  absl::Notification done;
  Client& reference = *last;
  reference.RunOnCallbackThread([&done, last = std::move(last)]() mutable {
    last.reset();
    done.Notify();
  });
  done.WaitForNotification();
}

}  // namespace
}  // namespace conclave
