// Watches against real servers: order, state first, compaction, cancellation.
#include <atomic>
#include <memory>
#include <string>

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

class WatchTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
  }
  std::string Key(const std::string& name) const { return prefix_ + name; }
  // On all members: one that is a little behind has the history still, and rightly gives it.
  void CompactEverywhere(int64_t revision) {
    ASSERT_TRUE(client().Compact(revision).ok());
    for (const std::string& endpoint : testing::TestCluster::Shared(GetParam())->endpoints()) {
      absl::StatusOr<Client> member = Client::Connect({.endpoints = {endpoint}});
      ASSERT_TRUE(member.ok()) << member.status();
      ASSERT_TRUE(testing::WaitFor([&] {
        return IsCompacted(
            member->Range(prefix_, {.revision = revision - 1, .serializable = true}).status());
      }));
    }
  }
  int64_t MustPut(const std::string& name, const std::string& value) {
    auto put = client().Put(Key(name), value);
    EXPECT_TRUE(put.ok()) << put.status();
    return put.ok() ? put->revision : 0;
  }
  Client& client() { return *client_; }

  std::optional<Client> client_;
  std::string prefix_;
};

TEST_P(WatchTest, DeliversEveryChangeInOrder) {
  const int64_t first = MustPut("a", "0");
  Collector seen;
  Watch watch =
      client().Watch(Prefix(prefix_), {.from_revision = first, .prev_kv = true}, seen.Callback());
  for (int i = 1; i < 50; ++i) MustPut("a", std::to_string(i));
  ASSERT_TRUE(client().Delete(Key("a")).ok());
  ASSERT_TRUE(seen.WaitForEvents(51));
  const std::vector<WatchEvent> events = seen.events();
  ASSERT_EQ(events.size(), 51u);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(events[i].kv.value, std::to_string(i));
    EXPECT_EQ(events[i].is_create(), i == 0);
    EXPECT_EQ(events[i].prev_kv.has_value(), i != 0);
  }
  EXPECT_EQ(events[50].type, WatchEvent::Type::kDelete);
  ASSERT_TRUE(events[50].prev_kv.has_value());
  EXPECT_EQ(events[50].prev_kv->value, "49");
}

TEST_P(WatchTest, StateFirstLeavesNoGap) {
  MustPut("a", "1");
  MustPut("b", "2");
  Collector seen;
  Watch watch = client().Watch(Prefix(prefix_), {.list_first = true}, seen.Callback());
  MustPut("c", "3");
  // The put of c is in the state or an event, never both and never neither.
  ASSERT_TRUE(seen.WaitFor([](const std::vector<WatchBatch>& batches) {
    size_t keys = 0;
    for (const WatchBatch& batch : batches) keys += batch.state.size() + batch.events.size();
    return keys >= 3;
  }));
  const std::vector<WatchBatch> batches = seen.batches();
  EXPECT_TRUE(batches[0].resynced);
  size_t keys = 0;
  for (const WatchBatch& batch : batches) keys += batch.state.size() + batch.events.size();
  EXPECT_EQ(keys, 3u);
}

TEST_P(WatchTest, ARevisionOfManyKeysComesWhole) {
  Collector seen;
  const int64_t first = MustPut("a", "0");
  Watch watch = client().Watch(Prefix(prefix_), {.from_revision = first}, seen.Callback());
  TxnRequest txn;
  for (int i = 0; i < 100; ++i) {
    txn.success.push_back(Put(Key(absl::StrCat("k", i)), std::string(1000, 'x')));
  }
  ASSERT_TRUE(client().Commit(txn).ok());
  ASSERT_TRUE(seen.WaitForEvents(101));
  const std::vector<WatchBatch> batches = seen.batches();
  EXPECT_EQ(batches.back().events.back().kv.mod_revision, batches.back().revision);
  size_t of_txn = 0;
  for (const WatchEvent& event : batches.back().events) {
    of_txn += event.kv.mod_revision == batches.back().revision ? 1 : 0;
  }
  EXPECT_EQ(of_txn, 100u);
}

TEST_P(WatchTest, BeginsAnewWhereTheHistoryIsCompacted) {
  const int64_t first = MustPut("a", "1");
  MustPut("b", "1");
  const int64_t last = MustPut("a", "2");
  CompactEverywhere(last);
  Collector seen;
  Watch watch = client().Watch(Prefix(prefix_), {.from_revision = first}, seen.Callback());
  ASSERT_TRUE(seen.WaitFor([](const auto& batches) { return !batches.empty(); }));
  const WatchBatch batch = seen.batches()[0];
  EXPECT_TRUE(batch.resynced);
  ASSERT_EQ(batch.state.size(), 2u);
  EXPECT_EQ(batch.state[0].value, "2");
  MustPut("c", "1");
  ASSERT_TRUE(seen.WaitForEvents(1));
  EXPECT_EQ(seen.events()[0].kv.key, Key("c"));
}

TEST_P(WatchTest, FiltersAndSingleKeys) {
  const int64_t first = MustPut("a", "1");
  Collector deletes, puts;
  Watch no_puts =
      client().Watch(Key("a"), {.from_revision = first, .no_puts = true}, deletes.Callback());
  Watch no_deletes =
      client().Watch(Key("a"), {.from_revision = first, .no_deletes = true}, puts.Callback());
  MustPut("ab", "another key");
  ASSERT_TRUE(client().Delete(Key("a")).ok());
  MustPut("a", "2");
  ASSERT_TRUE(puts.WaitForEvents(2));
  ASSERT_TRUE(deletes.WaitForEvents(1));
  EXPECT_EQ(puts.events().size(), 2u);
  EXPECT_EQ(deletes.events()[0].type, WatchEvent::Type::kDelete);
}

TEST_P(WatchTest, AnImpossibleRangeEndsWithAStatus) {
  Collector seen;
  Watch watch = client().Watch({"b", "a"}, {}, seen.Callback());
  ASSERT_TRUE(seen.WaitFor([](const auto& batches) { return !batches.empty(); }));
  EXPECT_FALSE(seen.batches()[0].status.ok());
}

TEST_P(WatchTest, NoCallbackAfterCancel) {
  std::atomic<int> running = 0;
  std::atomic<bool> cancelled = false;
  std::atomic<int> late = 0;
  Watch watch = client().Watch(Prefix(prefix_), {.list_first = true}, [&](const WatchBatch&) {
    if (cancelled) ++late;
    ++running;
  });
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) MustPut("a", "x");
  });
  ASSERT_TRUE(testing::WaitFor([&] { return running > 3; }));
  watch.Cancel();
  cancelled = true;
  for (int i = 0; i < 10; ++i) MustPut("b", "x");
  stop = true;
  writer.join();
  EXPECT_EQ(late, 0);
}

TEST_P(WatchTest, AWatchMayGoInItsOwnCallback) {
  absl::Notification done;
  auto watch = std::make_unique<std::optional<Watch>>();
  absl::Notification placed;
  auto& slot = *watch;
  slot = client().Watch(Prefix(prefix_), {.list_first = true}, [&](const WatchBatch&) {
    placed.WaitForNotification();
    watch.reset();
    done.Notify();
  });
  placed.Notify();
  done.WaitForNotification();
  MustPut("a", "1");
}

TEST_P(WatchTest, HundredsOfWatchesShareOneStream) {
  constexpr int kWatches = 300;
  Collector seen;
  std::vector<Watch> watches;
  const int64_t first = MustPut("start", "");
  for (int i = 0; i < kWatches; ++i) {
    watches.push_back(
        client().Watch(Key(absl::StrCat("k", i)), {.from_revision = first}, seen.Callback()));
  }
  for (int i = 0; i < kWatches; ++i) MustPut(absl::StrCat("k", i), "v");
  ASSERT_TRUE(seen.WaitForEvents(kWatches));
  EXPECT_EQ(seen.events().size(), static_cast<size_t>(kWatches));
}

INSTANTIATE_TEST_SUITE_P(Servers, WatchTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
