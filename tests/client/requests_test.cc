// Requests with something special about them, against real servers: nested transactions, compares
// of ranges, keys and values of any bytes and of any size, and what is refused.
#include <memory>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;

class RequestsTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
  }
  std::string Key(const std::string& name) const { return prefix_ + name; }
  std::string ValueOf(const std::string& name) {
    auto kv = client().Get(Key(name));
    EXPECT_TRUE(kv.ok()) << kv.status();
    return kv.ok() && kv->has_value() ? (*kv)->value : "(absent)";
  }
  Client& client() { return *client_; }

  std::optional<Client> client_;
  std::string prefix_;
};

TEST_P(RequestsTest, ANestedTransactionChoosesAfterTheOuterOne) {
  ASSERT_TRUE(client().Put(Key("stock"), "3").ok());
  const auto order = [this](const std::string& stock, const std::string& left) {
    TxnRequest inner{.conditions = {Value(Key("stock")) == stock},
                     .success = {Put(Key("stock"), left, {.prev_kv = true})},
                     .failure = {Get(Key("stock"))}};
    return client()
        .Txn()
        .If(Absent(Key("closed")))
        .Then(Txn(std::move(inner)), Get(Key("stock")))
        .Else(Get(Key("closed")))
        .Commit();
  };
  auto bought = order("3", "2");
  ASSERT_TRUE(bought.ok()) << bought.status();
  EXPECT_TRUE(bought->succeeded);
  EXPECT_TRUE(bought->txn(0).succeeded);
  EXPECT_EQ(bought->txn(0).revision, bought->revision);
  EXPECT_EQ(bought->txn(0).put(0).prev_kv->value, "3");
  EXPECT_EQ(bought->get(1)->value, "2");

  auto stale = order("3", "2");
  ASSERT_TRUE(stale.ok()) << stale.status();
  EXPECT_TRUE(stale->succeeded);
  EXPECT_FALSE(stale->txn(0).succeeded);
  EXPECT_EQ(stale->txn(0).get(0)->value, "2");

  ASSERT_TRUE(client().Put(Key("closed"), "").ok());
  auto closed = order("2", "1");
  ASSERT_TRUE(closed.ok()) << closed.status();
  EXPECT_FALSE(closed->succeeded);
  ASSERT_NE(closed->get(0), nullptr);
  EXPECT_EQ(ValueOf("stock"), "2");
}

TEST_P(RequestsTest, ConditionsOnRangesAskForEveryKey) {
  ASSERT_TRUE(client().Put(Key("a/1"), "x").ok());
  auto last = client().Put(Key("a/2"), "x");
  ASSERT_TRUE(last.ok());
  const KeyRange all = Prefix(Key("a/"));
  const auto holds = [this](const Compare& compare) {
    // With a read in it: etcd answers a transaction without operations from the state of whichever
    // member is asked.
    auto result = client().Txn().If(compare).Then(Get("k")).Else(Get("k")).Commit();
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() && result->succeeded;
  };
  EXPECT_TRUE(holds(Present(all)));
  EXPECT_FALSE(holds(Absent(all)));
  EXPECT_TRUE(holds(Absent(Prefix(Key("none/")))));
  EXPECT_TRUE(holds(Value(all) == "x"));
  EXPECT_TRUE(holds(Version(all) == 1));
  EXPECT_TRUE(holds(LeaseOf(all) == 0));
  EXPECT_TRUE(holds(ModRevision(all) < last->revision + 1));
  EXPECT_FALSE(holds(ModRevision(all) < last->revision));
  EXPECT_TRUE(holds(CreateRevision(all) > 0));
  EXPECT_TRUE(holds(Value(all) != "y"));
  EXPECT_TRUE(holds(Value(all) > "w"));
}

TEST_P(RequestsTest, EmptyTransactionsAreFine) {
  auto nothing = client().Txn().Commit();
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_TRUE(nothing->succeeded);
  EXPECT_TRUE(nothing->results.empty());
  EXPECT_GT(nothing->revision, 0);
  auto no_else = client().Txn().If(Present(Key("k"))).Then(Put(Key("k"), "v")).Commit();
  ASSERT_TRUE(no_else.ok()) << no_else.status();
  EXPECT_FALSE(no_else->succeeded);
}

TEST_P(RequestsTest, KeysAndValuesAreBytes) {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every.push_back(static_cast<char>(byte));
  for (const std::string& bytes :
       {every, std::string("\0", 1), std::string("\xff\xff"), std::string("\xc3\x28 not UTF-8")}) {
    ASSERT_TRUE(client().Put(Key(bytes), bytes).ok());
    auto kv = client().Get(Key(bytes));
    ASSERT_TRUE(kv.ok() && kv->has_value()) << kv.status();
    EXPECT_EQ((*kv)->key, Key(bytes));
    EXPECT_EQ((*kv)->value, bytes);
  }
  auto txn = client().Txn().If(Value(Key(every)) == every).Then(Delete(Key(every))).Commit();
  ASSERT_TRUE(txn.ok() && txn->succeeded) << txn.status();
  ASSERT_TRUE(client().Put(Key("empty"), "").ok());
  auto empty = client().Get(Key("empty"));
  ASSERT_TRUE(empty.ok() && empty->has_value());
  EXPECT_EQ((*empty)->value, "");
}

TEST_P(RequestsTest, AMegabyteGoesInAndOut) {
  const std::string megabyte(1 << 20, '\x80');
  ASSERT_TRUE(client().Put(Key("big"), megabyte).ok());
  auto kv = client().Get(Key("big"));
  ASSERT_TRUE(kv.ok() && kv->has_value()) << kv.status();
  EXPECT_EQ((*kv)->value, megabyte);
  auto txn = client().Txn().Then(Put(Key("big"), megabyte, {.prev_kv = true})).Commit();
  ASSERT_TRUE(txn.ok()) << txn.status();
  EXPECT_EQ(txn->put(0).prev_kv->value, megabyte);
}

// Whether the server's own limit or the one of its transport says no: it is refused, and known not
// to have happened.
TEST_P(RequestsTest, TooLargeIsRefusedAndDidNotHappen) {
  for (const size_t size : {size_t{1800} << 10, size_t{4} << 20}) {
    auto put = client().Put(Key("huge"), std::string(size, 'x'));
    ASSERT_FALSE(put.ok());
    EXPECT_TRUE(absl::IsInvalidArgument(put.status()) || absl::IsResourceExhausted(put.status()))
        << put.status();
    auto detail = GetErrorDetail(put.status());
    ASSERT_TRUE(detail.has_value());
    EXPECT_EQ(detail->outcome, Outcome::kNotExecuted) << put.status();
    EXPECT_FALSE(detail->retryable);
    EXPECT_FALSE(detail->endpoint.empty());
  }
  EXPECT_EQ(ValueOf("huge"), "(absent)");
}

TEST_P(RequestsTest, TooManyOperationsAreRefused) {
  TxnRequest many;
  for (int i = 0; i < 129; ++i) many.success.push_back(Put(Key(std::to_string(i)), "v"));
  auto result = client().Commit(many);
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  EXPECT_EQ(GetErrorDetail(result.status())->server_error,
            "etcdserver: too many operations in txn request");
  EXPECT_EQ(ValueOf("0"), "(absent)");
}

TEST_P(RequestsTest, WhatCannotBeMeantIsRefusedAtTheCall) {
  EXPECT_TRUE(absl::IsInvalidArgument(client().Put("", "v").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Get("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Delete("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Put("k", "v", {.ignore_value = true}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Get("k", {.revision = -3}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Range(AllKeys(), {.limit = -3}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Txn().If(Absent("")).Commit().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client().Compact(-1)));
}

INSTANTIATE_TEST_SUITE_P(Servers, RequestsTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
