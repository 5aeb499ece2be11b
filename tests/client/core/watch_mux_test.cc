// The watch stream: numbering, resuming, fragments, compaction, silence.
#include "conclave/client/core/watch_mux.h"

#include <string>
#include <vector>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

class WatchMuxTest : public testing::EngineFixture {
 protected:
  WatchHandle Add(const std::string& key, const WatchOptions& options) {
    WatchHandle handle = engine_.watches().Add(
        key, options, [this](WatchBatch batch) { batches_.push_back(std::move(batch)); });
    engine_.Advance(now_);
    return handle;
  }
  void Created(int64_t id, int64_t revision = 10) {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_created(true);
    response.mutable_header()->set_revision(revision);
    Say(response);
  }
  static WatchResponse Events(int64_t id, const std::vector<int64_t>& revisions,
                              bool fragment = false, const std::string& key = "k") {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_fragment(fragment);
    for (int64_t revision : revisions) {
      mvccpb::KeyValue& kv = *response.add_events()->mutable_kv();
      kv.set_key(key);
      kv.set_mod_revision(revision);
      response.mutable_header()->set_revision(revision);
    }
    return response;
  }
  std::vector<int64_t> Delivered() const {
    std::vector<int64_t> revisions;
    for (const WatchBatch& batch : batches_) {
      for (const WatchEvent& event : batch.events) revisions.push_back(event.kv.mod_revision);
    }
    return revisions;
  }
  int64_t StartOf(size_t message) {
    return Sent<WatchRequest>(message).create_request().start_revision();
  }

  std::vector<WatchBatch> batches_;
};

using Revisions = std::vector<int64_t>;

TEST_F(WatchMuxTest, ManyWatchesShareOneStreamAndAreNumberedInOrder) {
  Add("a", {.from_revision = 3});
  Add("b", {.from_revision = 4});
  EXPECT_EQ(wire_.streams.size(), 1u);
  EXPECT_EQ(Sent<WatchRequest>(0).create_request().key(), "a");
  EXPECT_EQ(Sent<WatchRequest>(1).create_request().key(), "b");
  Created(7);
  Created(8);
  Say(Events(8, {5}, false, "b"));
  Say(Events(7, {6}, false, "a"));
  Say(Events(9, {7}));  // nobody's
  EXPECT_EQ(Delivered(), (Revisions{5, 6}));
}

TEST_F(WatchMuxTest, ResumesOnAnotherMemberBehindTheLastRevision) {
  Add("k", {.from_revision = 3});
  Created(0);
  Say(Events(0, {3, 5}));
  const size_t member = LastStream().endpoint;
  BreakStream();
  Go(seconds(1));
  ASSERT_EQ(wire_.streams.size(), 2u);
  EXPECT_NE(LastStream().endpoint, member);
  EXPECT_EQ(StartOf(0), 6);
  Created(0);
  Say(Events(0, {4, 5, 6}));  // a server that repeats itself
  EXPECT_EQ(Delivered(), (Revisions{3, 5, 6}));
}

TEST_F(WatchMuxTest, AWatchFromNowOnResumesFromWhereItBegan) {
  Add("k", {});
  EXPECT_EQ(StartOf(0), 0);
  Created(0, /*revision=*/41);
  BreakStream();
  Go(seconds(1));
  EXPECT_EQ(StartOf(0), 42);
}

TEST_F(WatchMuxTest, FragmentsComeTogetherOrNotAtAll) {
  Add("k", {.from_revision = 3});
  Created(0);
  Say(Events(0, {3, 3}, /*fragment=*/true));
  EXPECT_TRUE(batches_.empty());
  BreakStream();
  Go(seconds(1));
  EXPECT_EQ(StartOf(0), 3);
  Created(0);
  Say(Events(0, {3, 3}, true));
  Say(Events(0, {3}, true));
  Say(Events(0, {3}));
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].events.size(), 4u);
  EXPECT_EQ(batches_[0].revision, 3);
}

TEST_F(WatchMuxTest, NoticesOfProgressMoveThePlaceToResume) {
  Add("k", {.from_revision = 3, .report_progress = true});
  Created(0);
  WatchResponse progress;
  progress.set_watch_id(0);
  progress.mutable_header()->set_revision(90);
  Say(progress);
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].revision, 90);
  // An answer for the whole stream may overtake events in old servers: a sign of life, no more.
  progress.set_watch_id(-1);
  progress.mutable_header()->set_revision(200);
  Say(progress);
  BreakStream();
  Go(seconds(1));
  EXPECT_EQ(StartOf(0), 91);
}

TEST_F(WatchMuxTest, StateFirstThenTheEventsBehindIt) {
  Add("k", {.list_first = true, .serializable_list = true});
  etcdserverpb::RangeRequest list;
  ASSERT_TRUE(list.ParseFromString(LastCall().request));
  EXPECT_TRUE(list.serializable());
  etcdserverpb::RangeResponse state;
  state.mutable_header()->set_revision(20);
  state.add_kvs()->set_key("k");
  Answer(state);
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_TRUE(batches_[0].resynced);
  EXPECT_EQ(batches_[0].state.size(), 1u);
  EXPECT_EQ(batches_[0].revision, 20);
  EXPECT_EQ(StartOf(0), 21);
}

TEST_F(WatchMuxTest, CompactionListsAgainAndNeverTurnsTimeBack) {
  Add("k", {.from_revision = 3, .serializable_list = true});
  Created(0);
  Say(Events(0, {30}));
  WatchResponse compacted;
  compacted.set_watch_id(0);
  compacted.set_canceled(true);
  compacted.set_compact_revision(50);
  Say(compacted);
  etcdserverpb::RangeRequest list;
  ASSERT_TRUE(list.ParseFromString(LastCall().request));
  EXPECT_FALSE(list.serializable());
  etcdserverpb::RangeResponse state;
  state.mutable_header()->set_revision(25);  // a member that lags
  Answer(state);
  EXPECT_EQ(batches_.size(), 1u);
  Go(seconds(1));
  state.mutable_header()->set_revision(60);
  Answer(state);
  ASSERT_EQ(batches_.size(), 2u);
  EXPECT_TRUE(batches_[1].resynced);
  EXPECT_EQ(batches_[1].revision, 60);
  EXPECT_EQ(StartOf(LastStream().sent.size() - 1), 61);
}

// ---- Lists of more than one page
// -------------------------------------------------------------------

class ListTest : public WatchMuxTest {
 protected:
  void AddAll() {
    engine_.watches().Add(AllKeys(), {.list_first = true, .serializable_list = true},
                          [this](WatchBatch batch) { batches_.push_back(std::move(batch)); });
    engine_.Advance(now_);
  }
  etcdserverpb::RangeRequest Asked() {
    etcdserverpb::RangeRequest request;
    EXPECT_TRUE(request.ParseFromString(LastCall().request));
    return request;
  }
  void Page(int64_t revision, const std::vector<std::string>& keys, bool more) {
    etcdserverpb::RangeResponse page;
    page.mutable_header()->set_revision(revision);
    page.set_more(more);
    for (const std::string& key : keys) page.add_kvs()->set_key(key);
    Answer(page);
  }
};

TEST_F(ListTest, ItsPagesAreOfOneRevision) {
  AddAll();
  EXPECT_GT(Asked().limit(), 0);
  EXPECT_EQ(Asked().revision(), 0);
  Page(20, {"a", "b"}, true);
  EXPECT_TRUE(batches_.empty());
  EXPECT_EQ(Asked().revision(), 20);
  EXPECT_EQ(Asked().key(), std::string("b\0", 2));
  EXPECT_TRUE(Asked().serializable());
  Page(25, {"c"}, false);  // the store has gone on meanwhile
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_TRUE(batches_[0].resynced);
  EXPECT_EQ(batches_[0].revision, 20);
  ASSERT_EQ(batches_[0].state.size(), 3u);
  EXPECT_EQ(batches_[0].state[2].key, "c");
  EXPECT_EQ(StartOf(0), 21);
}

TEST_F(ListTest, AFailedPageIsAskedForAgainAndNotTheWholeList) {
  AddAll();
  Page(20, {"a"}, true);
  const size_t calls = wire_.calls.size();
  FailCall(14, "gone");
  while (wire_.calls.size() == calls) Go(seconds(1));
  EXPECT_EQ(Asked().key(), std::string("a\0", 2));
  Page(22, {"b"}, false);
  ASSERT_EQ(batches_.back().state.size(), 2u);
  EXPECT_EQ(batches_.back().revision, 20);
}

TEST_F(ListTest, WhereItsRevisionIsCompactedItBeginsAnew) {
  AddAll();
  Page(20, {"a"}, true);
  const size_t calls = wire_.calls.size();
  FailCall(11, "etcdserver: mvcc: required revision has been compacted");
  while (wire_.calls.size() == calls) Go(seconds(1));
  EXPECT_EQ(Asked().revision(), 0);
  EXPECT_TRUE(Asked().key() == std::string(1, '\0'));
  Page(30, {"c"}, false);
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].revision, 30);
  ASSERT_EQ(batches_[0].state.size(), 1u);
  EXPECT_EQ(batches_[0].state[0].key, "c");
}

TEST_F(ListTest, AServerWhosePagesGoBackIsAskedAllOverAgain) {
  AddAll();
  Page(20, {"m"}, true);
  const size_t calls = wire_.calls.size();
  Page(20, {"a"}, true);
  EXPECT_TRUE(batches_.empty());
  while (wire_.calls.size() == calls) Go(seconds(1));
  EXPECT_EQ(Asked().revision(), 0);
}

// ---- The difference after a compaction
// -------------------------------------------------------------

class DiffTest : public WatchMuxTest {
 protected:
  void Compacted() {
    WatchResponse compacted;
    compacted.set_watch_id(0);
    compacted.set_canceled(true);
    compacted.set_compact_revision(50);
    Say(compacted);
  }
  void List(int64_t revision, const std::vector<std::pair<std::string, int64_t>>& keys) {
    etcdserverpb::RangeResponse state;
    state.mutable_header()->set_revision(revision);
    for (const auto& [key, mod_revision] : keys) {
      mvccpb::KeyValue& kv = *state.add_kvs();
      kv.set_key(key);
      kv.set_value("v" + std::to_string(mod_revision));
      kv.set_mod_revision(mod_revision);
    }
    Answer(state);
  }
  // "+a@5" put, "-a@9" deleted, "(v5)" what stood there before.
  static std::vector<std::string> Shown(const WatchBatch& batch) {
    std::vector<std::string> shown;
    for (const WatchEvent& event : batch.events) {
      std::string text = event.type == WatchEvent::Type::kPut ? "+" : "-";
      text += event.kv.key + "@" + std::to_string(event.kv.mod_revision);
      if (event.prev_kv.has_value()) text += "(" + event.prev_kv->value + ")";
      shown.push_back(text);
    }
    return shown;
  }
  void AddPrefix(const WatchOptions& options) {
    engine_.watches().Add(Prefix("k/"), options,
                          [this](WatchBatch batch) { batches_.push_back(std::move(batch)); });
    engine_.Advance(now_);
  }
};

using Lines = std::vector<std::string>;

TEST_F(DiffTest, AResyncedBatchCarriesWhatChangedSinceTheLastDelivery) {
  AddPrefix({.list_first = true, .prev_kv = true, .diff_on_resync = true});
  List(20, {{"k/gone", 3}, {"k/same", 9}, {"k/changed", 5}});
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(Shown(batches_[0]), (Lines{"+k/gone@3", "+k/changed@5", "+k/same@9"}));
  Created(0, 20);
  WatchResponse events = Events(0, {21}, false, "k/late");
  events.mutable_events(0)->mutable_kv()->set_value("v21");
  Say(events);
  Compacted();
  List(60, {{"k/changed", 41}, {"k/new", 30}, {"k/same", 9}});
  ASSERT_EQ(batches_.size(), 3u);
  EXPECT_TRUE(batches_[2].resynced);
  EXPECT_EQ(batches_[2].state.size(), 3u);
  EXPECT_EQ(Shown(batches_[2]),
            (Lines{"+k/new@30", "+k/changed@41(v5)", "-k/gone@60(v3)", "-k/late@60(v21)"}));
}

TEST_F(DiffTest, DeletesThatWereSeenAreNotToldAgain) {
  AddPrefix({.list_first = true, .diff_on_resync = true});
  List(20, {{"k/a", 3}, {"k/b", 4}});
  Created(0, 20);
  WatchResponse deleted = Events(0, {21}, false, "k/a");
  deleted.mutable_events(0)->set_type(mvccpb::Event::DELETE);
  Say(deleted);
  Compacted();
  List(60, {{"k/b", 4}});
  ASSERT_EQ(batches_.size(), 3u);
  EXPECT_TRUE(batches_[2].events.empty());
}

TEST_F(DiffTest, FiltersHoldForTheDifferenceToo) {
  AddPrefix({.list_first = true, .no_deletes = true, .diff_on_resync = true});
  List(20, {{"k/a", 3}});
  Created(0, 20);
  Compacted();
  List(60, {{"k/b", 50}});
  ASSERT_EQ(batches_.size(), 2u);
  EXPECT_EQ(Shown(batches_[1]), Lines{"+k/b@50"});
}

TEST_F(DiffTest, WithoutTheOptionThereIsTheStateAlone) {
  AddPrefix({.list_first = true});
  List(20, {{"k/a", 3}});
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_TRUE(batches_[0].events.empty());
  EXPECT_EQ(batches_[0].state.size(), 1u);
}

TEST_F(WatchMuxTest, ItsVitalsSayWhatHasComeAndWhetherItIsConnected) {
  auto vitals = std::make_shared<WatchVitals>();
  engine_.watches().Add(
      "k", {.from_revision = 3}, [](WatchBatch) {}, vitals);
  EXPECT_FALSE(vitals->connected);
  Created(0, 10);
  EXPECT_TRUE(vitals->connected);
  Say(Events(0, {5}));
  EXPECT_EQ(vitals->received, 5);
  EXPECT_EQ(engine_.watches().SlowestReceived(), 5);
  WatchResponse progress;
  progress.mutable_header()->set_revision(12);
  Say(progress);
  EXPECT_EQ(vitals->received, 12);
  EXPECT_EQ(engine_.options().vitals->newest_revision, 12);
  EXPECT_EQ(engine_.options().vitals->watch_heard.load(), now_);
  BreakStream();
  EXPECT_FALSE(vitals->connected);
}

TEST_F(WatchMuxTest, AWatchRemovedBeforeItWasNumberedIsCancelledAfterwards) {
  WatchHandle first = Add("a", {});
  Add("b", {.from_revision = 1});
  engine_.watches().Remove(first);
  Created(4);
  EXPECT_EQ(Sent<WatchRequest>(2).cancel_request().watch_id(), 4);
  Created(5);
  Say(Events(4, {11}, false, "a"));
  Say(Events(5, {12}, false, "b"));
  EXPECT_EQ(Delivered(), Revisions{12});
}

TEST_F(WatchMuxTest, ARefusedWatchEndsAndTheOthersGoOn) {
  Add("a", {});
  Add("b", {.from_revision = 1});
  WatchResponse refused;
  refused.set_watch_id(-1);
  refused.set_created(true);
  refused.set_canceled(true);
  refused.set_cancel_reason(
      "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
  Say(refused);
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(engine_.watches().size(), 1u);
  Created(0);
  Say(Events(0, {5}, false, "b"));
  EXPECT_EQ(Delivered(), Revisions{5});
}

TEST_F(WatchMuxTest, ASilentStreamIsAskedAndThenLeft) {
  Add("k", {});
  Created(0);
  Go(seconds(29));
  EXPECT_EQ(LastStream().sent.size(), 1u);
  Go(seconds(2));
  ASSERT_EQ(LastStream().sent.size(), 2u);
  EXPECT_TRUE(Sent<WatchRequest>(1).has_progress_request());
  WatchResponse alive;
  alive.set_watch_id(-1);
  Say(alive);
  Go(seconds(29));
  EXPECT_EQ(wire_.streams.size(), 1u);
  Go(seconds(10));
  EXPECT_TRUE(wire_.streams[0].closed);
  EXPECT_GE(wire_.streams.size(), 2u);
}

TEST_F(WatchMuxTest, AMemberThatDoesNotCreateIsLeftWithGrowingPatience) {
  Add("k", {});
  Go(milliseconds(1500));
  EXPECT_EQ(wire_.streams.size(), 2u);
  EXPECT_TRUE(wire_.streams[0].closed);
  EXPECT_NE(wire_.streams[0].endpoint, wire_.streams[1].endpoint);
  Go(milliseconds(1000));
  EXPECT_EQ(wire_.streams.size(), 2u);
  Go(milliseconds(1500));
  EXPECT_EQ(wire_.streams.size(), 3u);
}

TEST_F(WatchMuxTest, APausedStreamIsNotTakenForASilentOne) {
  Add("k", {});
  Created(0);
  engine_.watches().Pause(true);
  EXPECT_TRUE(LastStream().paused);
  Go(std::chrono::hours(1));
  EXPECT_EQ(wire_.streams.size(), 1u);
  engine_.watches().Pause(false);
  EXPECT_FALSE(LastStream().paused);
}

TEST_F(WatchMuxTest, TellsOfTheConnectionToThoseWhoAsk) {
  Add("k", {.report_connection = true});
  Created(0);
  EXPECT_TRUE(batches_.empty());
  BreakStream();
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_FALSE(batches_[0].connected);
  Go(seconds(1));
  Created(0);
  ASSERT_EQ(batches_.size(), 2u);
  EXPECT_TRUE(batches_[1].connected);
}

TEST_F(WatchMuxTest, TheLastWatchTakesTheStreamAlong) {
  WatchHandle handle = Add("k", {});
  Created(0);
  engine_.watches().Remove(handle);
  EXPECT_TRUE(LastStream().closed);
  Go(std::chrono::hours(1));
  EXPECT_EQ(wire_.streams.size(), 1u);
}

TEST_F(WatchMuxTest, NonsenseFromTheServerLeavesTheMember) {
  Add("k", {});
  engine_.OnStreamMessage(LastStream().id, "\xff\xff\xff");
  engine_.Advance(now_);
  EXPECT_TRUE(wire_.streams[0].closed);
  Go(seconds(1));
  ASSERT_EQ(wire_.streams.size(), 2u);
  Created(0);
  Created(1);  // that we did not ask for
  EXPECT_TRUE(wire_.streams[1].closed);
}

}  // namespace
}  // namespace conclave
