#include "conclave/server/watch/watch_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "conclave/server/mvcc/snapshot_cursor.h"

namespace conclave::watch {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Instant kStart{1000s};
constexpr StreamId kStream = 1;

// One line per response: what a reader of the protocol would want to see of it.
std::string Show(const WatchResponse& response) {
  std::string text =
      std::to_string(response.watch_id) + " r" + std::to_string(response.header_revision);
  if (response.created) text += " created";
  if (response.canceled) text += " canceled";
  if (response.compact_revision != 0) {
    text += " compact " + std::to_string(response.compact_revision);
  }
  if (!response.cancel_reason.empty()) text += " (" + response.cancel_reason + ")";
  if (response.events != nullptr) {
    for (const Event& event : response.events->events()) {
      text += event.is_delete() ? " -" : " +";
      text += std::string(event.record->key()) + "@" + std::to_string(event.record->mod_revision());
      if (event.previous) text += "<" + std::string(event.previous->value());
    }
  }
  if (response.fragment) text += " ...";
  return text;
}

class WatchHubTest : public testing::Test {
 protected:
  explicit WatchHubTest(WatchOptions options = {}) : hub_(&store_, options) {
    hub_.OpenStream(kStream);
  }

  void Put(std::string_view key, std::string_view value = "v") {
    mvcc::WriteTxn txn = store_.Begin();
    txn.Put(key, value, 0);
    txn.Commit();
  }
  void Delete(std::string_view key) {
    mvcc::WriteTxn txn = store_.Begin();
    txn.Delete(key);
    txn.Commit();
  }
  void Create(const CreateRequest& request) { hub_.Create(kStream, request, kStart); }

  // What the stream gets now; `written` reports it back at once.
  std::vector<std::string> Output(bool written = true) {
    std::vector<std::string> lines;
    hub_.TakeOutput(&output_);
    for (const StreamOutput& output : output_) {
      for (const WatchResponse& response : output.responses) {
        lines.push_back(Show(response));
        if (output.stream == kStream) charges_.push_back(response.charge);
        if (written) hub_.Written(output.stream, response.charge);
      }
    }
    hub_.CheckInvariants();
    return lines;
  }
  std::vector<std::string> CaughtUp() {
    while (hub_.CatchUp(100)) {
    }
    return Output();
  }

  mvcc::Store store_;
  WatchHub hub_;
  std::vector<StreamOutput> output_;
  std::vector<size_t> charges_;
};

TEST_F(WatchHubTest, DeliversARevisionInOneResponseBehindCreated) {
  Create({.key = "a", .range_end = "c"});
  mvcc::WriteTxn txn = store_.Begin();
  txn.Put("a", "1", 0);
  txn.Put("b", "1", 0);
  txn.Put("x", "1", 0);
  txn.Commit();
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "0 r2 +a@2 +b@2"));
  Delete("b");
  Put("x");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r3 -b@3"));
}

TEST_F(WatchHubTest, AssignsIdsAndSkipsUsedOnes) {
  Create({.key = "a"});
  Create({.key = "a", .watch_id = 1});
  Create({.key = "a"});
  Create({.key = "a", .watch_id = 2});
  Create({.key = "a", .watch_id = 7});
  EXPECT_THAT(Output(),
              ElementsAre("0 r1 created", "1 r1 created", "2 r1 created",
                          "-1 r1 created canceled (mvcc: duplicate watch ID provided on the "
                          "WatchStream)",
                          "7 r1 created"));
}

TEST_F(WatchHubTest, RefusesWhatCannotBeWatched) {
  Create({.key = "b", .range_end = "b"});
  Create({.key = "b", .start_revision = -1});
  hub_.Refuse(kStream, "rpc error: code = PermissionDenied");
  EXPECT_THAT(
      Output(),
      ElementsAre("-1 r1 created canceled (mvcc: watcher range is empty)",
                  "-1 r1 created canceled (etcdserver: mvcc: required revision has been compacted)",
                  "-1 r1 created canceled (rpc error: code = PermissionDenied)"));
}

TEST_F(WatchHubTest, AnEmptyKeyWatchesFromZeroOn) {
  Create({.key = "", .range_end = std::string(1, '\0')});
  Put("a");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "0 r2 +a@2"));
}

TEST_F(WatchHubTest, HistoryComesFromTheStartRevisionWithTheCurrentRevisionInTheHeader) {
  Put("a", "1");
  Put("b", "1");
  Put("a", "2");
  hub_.Notify();
  Create({.key = "a", .start_revision = 2, .prev_kv = true});
  Put("a", "3");
  hub_.Notify();
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r4 created", "0 r5 +a@2 +a@4<1 +a@5<2"));
  Put("a", "4");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r6 +a@6<3"));
}

TEST_F(WatchHubTest, AStartInTheFutureHearsNothingBeforeIt) {
  Create({.key = "a", .start_revision = 4});
  for (int i = 0; i < 4; ++i) Put("a");
  hub_.Notify();
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r1 created", "0 r4 +a@4", "0 r5 +a@5"));
}

TEST_F(WatchHubTest, AStartBehindTheCompactRevisionIsCreatedAndThenCancelled) {
  for (int i = 0; i < 4; ++i) Put("a");
  hub_.Notify();
  ASSERT_TRUE(store_.Compact(4).ok());
  Create({.key = "a", .start_revision = 3});
  Create({.key = "a", .start_revision = 4});
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r5 created", "0 r0 canceled compact 4", "1 r5 created",
                                      "1 r5 +a@4 +a@5"));
}

TEST_F(WatchHubTest, ACompactionAtATombstoneStillLetsItBeHeard) {
  Put("a");
  Delete("a");
  hub_.Notify();
  ASSERT_TRUE(store_.Compact(3).ok());
  while (store_.CompactSlice(1)) {
  }
  Create({.key = "a", .start_revision = 3});
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r3 created", "0 r3 -a@3"));
}

TEST_F(WatchHubTest, ACompactionInTheSameTurnTakesNothingFromSyncedWatchers) {
  Create({.key = "a", .prev_kv = true});
  Put("a", "1");
  Put("a", "2");
  Put("a", "3");
  ASSERT_TRUE(store_.Compact(4).ok());
  while (store_.CompactSlice(1)) {
  }
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "0 r2 +a@2", "0 r3 +a@3", "0 r4 +a@4"))
      << "their previous values are compacted";
  EXPECT_TRUE(store_.compaction_pending()) << "what the hub has passed may go now";
}

TEST_F(WatchHubTest, FiltersDropEventsAndEmptyResponses) {
  Create({.key = "a", .no_put = true});
  Create({.key = "a", .no_delete = true});
  Put("a");
  Delete("a");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "1 r1 created", "1 r2 +a@2", "0 r3 -a@3"));
}

TEST_F(WatchHubTest, ACancelledWatcherIsToldAndHearsNoMore) {
  Create({.key = "a"});
  Create({.key = "a"});
  hub_.Cancel(kStream, 5);
  hub_.Cancel(kStream, 0);
  hub_.Cancel(kStream, 1, "permission denied");
  Put("a");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "1 r1 created", "0 r1 canceled",
                                    "1 r1 canceled (permission denied)"));
  EXPECT_EQ(hub_.sizes().watchers, 0u);
}

TEST_F(WatchHubTest, WatchersOfOneShapeShareOneBatch) {
  hub_.OpenStream(2);
  for (int i = 0; i < 3; ++i) {
    Create({.key = "a"});
    hub_.Create(2, {.key = "a"}, kStart);
  }
  Output();
  Put("a");
  hub_.Notify();
  hub_.TakeOutput(&output_);
  ASSERT_EQ(output_.size(), 2u);
  const EventBatchRef batch = output_[0].responses[0].events;
  for (const StreamOutput& output : output_) {
    ASSERT_EQ(output.responses.size(), 3u);
    for (const WatchResponse& response : output.responses) EXPECT_EQ(response.events, batch);
  }
}

TEST_F(WatchHubTest, AProgressRequestIsAnsweredWhenAllAreSyncedAndBehindTheirEvents) {
  Put("a");
  Put("a");
  hub_.Notify();
  Create({.key = "a", .start_revision = 2});
  hub_.RequestProgress(kStream);
  hub_.RequestProgress(kStream);
  EXPECT_THAT(Output(), ElementsAre("0 r3 created"));
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r3 +a@2 +a@3", "-1 r3"));
  Put("a");
  hub_.Notify();
  hub_.RequestProgress(kStream);
  EXPECT_THAT(Output(), ElementsAre("0 r4 +a@4", "-1 r4"));
}

TEST_F(WatchHubTest, ProgressWaitsForAStartInTheFuture) {
  Create({.key = "a", .start_revision = 4, .progress_notify = true});
  hub_.RequestProgress(kStream);
  hub_.Tick(kStart + 1h);
  EXPECT_THAT(Output(), ElementsAre("0 r1 created"));
  Put("b");
  hub_.Notify();
  EXPECT_THAT(Output(), IsEmpty());
  Put("b");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("-1 r3"));
  hub_.Tick(kStart + 2h);
  EXPECT_THAT(Output(), ElementsAre("0 r3"));
}

TEST_F(WatchHubTest, ProgressGoesToThoseWhoHeardNothing) {
  Create({.key = "a", .progress_notify = true});
  Create({.key = "b", .progress_notify = true});
  Create({.key = "c"});
  Output();
  const Instant first = hub_.NextTick();
  EXPECT_GE(first, kStart + 10min);
  EXPECT_LE(first, kStart + 11min);
  Put("a");
  hub_.Notify();
  hub_.Tick(first - 1ns);
  EXPECT_THAT(Output(), ElementsAre("0 r2 +a@2"));
  hub_.Tick(first);
  EXPECT_THAT(Output(), ElementsAre("1 r2"));
  hub_.Tick(hub_.NextTick());
  EXPECT_THAT(Output(), ElementsAre("0 r2", "1 r2"));
  hub_.Cancel(kStream, 0);
  hub_.Cancel(kStream, 1);
  EXPECT_EQ(hub_.NextTick(), kNever);
}

TEST_F(WatchHubTest, SizesAndUnknownStreams) {
  hub_.Create(99, {.key = "a"}, kStart);
  hub_.Cancel(99, 0);
  hub_.Written(99, 5);
  hub_.RequestProgress(99);
  hub_.CloseStream(99);
  EXPECT_THAT(Output(), IsEmpty());
  Create({.key = "a"});
  EXPECT_EQ(hub_.sizes().watchers, 1u);
  int visited = 0;
  const auto visit = [&](WatchId id, std::string_view key, std::string_view end) {
    EXPECT_EQ(id, 0);
    EXPECT_EQ(key, "a");
    EXPECT_EQ(end, "");
    return ++visited > 1;
  };
  EXPECT_FALSE(hub_.ForEachWatcher(kStream, kNoWatch, visit)) << "it was told to stop";
  EXPECT_TRUE(hub_.ForEachWatcher(kStream, 0, visit));
  EXPECT_TRUE(hub_.ForEachWatcher(kStream, 1, visit)) << "there is none from there on";
  EXPECT_TRUE(hub_.ForEachWatcher(99, 0, visit));
  EXPECT_EQ(visited, 2);
  hub_.CloseStream(kStream);
  EXPECT_EQ(hub_.sizes().streams, 0u);
  EXPECT_FALSE(hub_.has_output()) << "nothing more comes out for a closed stream";
  Put("a");
  hub_.Notify();
}

TEST_F(WatchHubTest, AfterARestoreWatchersGoOnWhereTheyWere) {
  Create({.key = "a"});
  Create({.key = "a", .start_revision = 6});
  Put("a");
  hub_.Notify();
  EXPECT_THAT(Output(), ElementsAre("0 r1 created", "1 r1 created", "0 r2 +a@2"));
  for (int i = 0; i < 4; ++i) Put("a");
  mvcc::SnapshotCursor cursor(&store_);
  mvcc::StoreBuilder builder(cursor.image());
  while (const mvcc::RecordRef record = cursor.Next()) {
    ASSERT_TRUE(builder
                    .Add({.key = record->key(),
                          .value = record->value(),
                          .revision = record->revision(),
                          .create_revision = record->create_revision(),
                          .version = record->version()})
                    .ok());
  }
  const std::unique_ptr<mvcc::Store> installed = *builder.Finish();
  hub_.Restore(installed.get());
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r6 +a@3 +a@4 +a@5 +a@6", "1 r6 +a@6"));
}

class SmallLimits : public WatchHubTest {
 protected:
  static WatchOptions Options() {
    WatchOptions options;
    options.stream_bytes_max = 1000;
    options.fragment_bytes = 300;
    options.batch_revisions_max = 3;
    options.watchers_per_stream_max = 2;
    return options;
  }
  SmallLimits() : WatchHubTest(Options()) {}
};

TEST_F(SmallLimits, ASlowReaderCostsBoundedMemoryAndMissesNothing) {
  hub_.OpenStream(2);
  Create({.key = "a"});
  hub_.Create(2, {.key = "a"}, kStart);
  Output();
  charges_.clear();
  std::vector<std::string> slow;
  std::vector<std::string> fast;
  for (int i = 0; i < 200; ++i) {
    Put("a", "value");
    hub_.Notify();
    hub_.TakeOutput(&output_);
    for (const StreamOutput& output : output_) {
      for (const WatchResponse& response : output.responses) {
        (output.stream == kStream ? slow : fast).push_back(Show(response));
        if (output.stream == kStream) {
          charges_.push_back(response.charge);
        } else {
          hub_.Written(output.stream, response.charge);
        }
      }
    }
  }
  EXPECT_EQ(fast.size(), 200u);
  EXPECT_LT(slow.size(), 15u);
  EXPECT_FALSE(hub_.Writable(kStream));
  EXPECT_TRUE(hub_.Writable(2));
  EXPECT_EQ(hub_.sizes().waiting_streams, 1u);
  EXPECT_EQ(hub_.sizes().lagging, 1u);
  EXPECT_FALSE(hub_.CatchUp(1000)) << "there is nothing to do before it reads";

  int64_t next = static_cast<int64_t>(slow.size()) + 2;
  for (const size_t charge : charges_) hub_.Written(kStream, charge);
  EXPECT_TRUE(hub_.Writable(kStream));
  while (next <= store_.current_revision()) {
    hub_.CatchUp(1);
    hub_.TakeOutput(&output_);
    for (const StreamOutput& output : output_) {
      for (const WatchResponse& response : output.responses) {
        ASSERT_LE(response.events->events().size(), 3u);
        for (const Event& event : response.events->events()) {
          ASSERT_EQ(event.record->mod_revision(), next++);
        }
        hub_.Written(kStream, response.charge);
      }
    }
  }
  EXPECT_EQ(hub_.sizes().lagging, 0u);
  hub_.CheckInvariants();
}

TEST_F(SmallLimits, ASlowReaderThatCompactionPassesIsToldSo) {
  Create({.key = "a"});
  for (int i = 0; i < 50; ++i) {
    Put("a", std::string(100, 'v'));
    hub_.Notify();
  }
  Output(false);
  ASSERT_TRUE(store_.Compact(40).ok());
  for (const size_t charge : charges_) hub_.Written(kStream, charge);
  EXPECT_THAT(CaughtUp(), ElementsAre("0 r0 canceled compact 40"));
}

TEST_F(SmallLimits, LargeRevisionsAreCutInFragmentsForThoseWhoWantThem) {
  Create({.key = "a", .range_end = "z", .fragment = true});
  Create({.key = "a", .range_end = "z"});
  Create({.key = "a"});
  mvcc::WriteTxn txn = store_.Begin();
  for (const char* key : {"a", "b", "c"}) txn.Put(key, std::string(100, 'v'), 0);
  txn.Commit();
  hub_.Notify();
  EXPECT_THAT(Output(),
              ElementsAre("0 r1 created", "1 r1 created",
                          "-1 r1 created canceled (etcdserver: too many watchers on the stream)",
                          "0 r2 +a@2 +b@2 ...", "0 r2 +c@2", "1 r2 +a@2 +b@2 +c@2"));
}

}  // namespace
}  // namespace conclave::watch
