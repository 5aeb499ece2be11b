// From watch batches to snapshots and deltas, without a server.
#include "conclave/discovery/service_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/discovery/discovery.h"

namespace conclave {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

KeyValue Entry(const std::string& address, int64_t revision, const std::string& metadata = "null") {
  return {.key = "s/" + address,
          .value = R"({"Op":0,"Addr":")" + address + R"(","Metadata":)" + metadata + "}",
          .create_revision = revision,
          .mod_revision = revision,
          .version = 1,
          .lease = 0};
}

WatchEvent Put(KeyValue kv) { return {.type = WatchEvent::Type::kPut, .kv = std::move(kv)}; }
WatchEvent Delete(const std::string& key) {
  return {.type = WatchEvent::Type::kDelete, .kv = {.key = key}};
}

std::vector<std::string> Addresses(const InstanceList& instances) {
  std::vector<std::string> addresses;
  for (const Instance& instance : instances) addresses.push_back(instance.address);
  return addresses;
}

class ServiceStateTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Snapshot> Apply(const WatchBatch& batch) {
    return Take(state_.Apply(batch, now_));
  }
  std::shared_ptr<const Snapshot> Take(ServiceState::Change change) {
    complaints_.insert(complaints_.end(), change.complaints.begin(), change.complaints.end());
    if (change.snapshot != nullptr) {
      delta_ = Difference(*last_, *change.snapshot);
      last_ = change.snapshot;
    }
    return change.snapshot;
  }
  std::shared_ptr<const Snapshot> Tick() { return Take(state_.Tick(now_)); }
  std::shared_ptr<const Snapshot> Confirm(const std::vector<KeyValue>& listed) {
    return Take(state_.Confirm(listed, now_, now_));
  }
  std::shared_ptr<const Snapshot> List(std::vector<KeyValue> state, int64_t revision) {
    WatchBatch batch;
    batch.resynced = true;
    batch.state = std::move(state);
    batch.revision = revision;
    return Apply(batch);
  }
  std::shared_ptr<const Snapshot> Events(std::vector<WatchEvent> events, int64_t revision) {
    WatchBatch batch;
    batch.events = std::move(events);
    batch.revision = revision;
    return Apply(batch);
  }
  std::shared_ptr<const Snapshot> Connection(bool connected) {
    WatchBatch batch;
    batch.connected = connected;
    return Apply(batch);
  }

  ServiceState state_{{.service = "s", .shrink_guard = 0.5, .shrink_hold = absl::Seconds(30)}};
  std::shared_ptr<const Snapshot> last_ = state_.snapshot();
  Delta delta_;
  std::vector<std::string> complaints_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(ServiceStateTest, IsUnknownUntilTheFirstList) {
  EXPECT_FALSE(last_->known());
  List({}, 5);
  EXPECT_TRUE(last_->known());
  EXPECT_THAT(last_->instances(), IsEmpty());
  EXPECT_EQ(last_->revision(), 5);
}

TEST_F(ServiceStateTest, FollowsPutsAndDeletes) {
  List({Entry("10.0.0.1:80", 3)}, 5);
  EXPECT_THAT(Addresses(delta_.added), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(last_->instances()[0].service, "s");
  Events({Put(Entry("10.0.0.2:80", 6))}, 6);
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  EXPECT_THAT(Addresses(delta_.added), ElementsAre("10.0.0.2:80"));
  Events({Put(Entry("10.0.0.2:80", 7, R"({"weight":5})"))}, 7);
  EXPECT_THAT(Addresses(delta_.updated), ElementsAre("10.0.0.2:80"));
  EXPECT_EQ(delta_.updated[0].weight, 5);
  Events({Delete("s/10.0.0.1:80")}, 8);
  EXPECT_THAT(Addresses(delta_.removed), ElementsAre("10.0.0.1:80"));
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.2:80"));
  EXPECT_EQ(last_->revision(), 8);
}

TEST_F(ServiceStateTest, ARelistIsReportedAsItsDifference) {
  List({Entry("10.0.0.1:80", 1), Entry("10.0.0.2:80", 2), Entry("10.0.0.3:80", 3)}, 5);
  List({Entry("10.0.0.2:80", 2), Entry("10.0.0.3:80", 9, "\"new\""), Entry("10.0.0.4:80", 8)}, 20);
  EXPECT_THAT(Addresses(delta_.added), ElementsAre("10.0.0.4:80"));
  EXPECT_THAT(Addresses(delta_.updated), ElementsAre("10.0.0.3:80"));
  EXPECT_THAT(Addresses(delta_.removed), ElementsAre("10.0.0.1:80"));
}

TEST_F(ServiceStateTest, AnUnreadableValueCostsNobodyElseAndIsReportedOnce) {
  KeyValue garbage{.key = "s/x", .value = "garbage", .create_revision = 2, .mod_revision = 2};
  List({Entry("10.0.0.1:80", 1), garbage}, 5);
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(last_->skipped(), 1);
  EXPECT_THAT(complaints_, SizeIs(1));
  List({Entry("10.0.0.1:80", 1), garbage}, 6);
  EXPECT_THAT(complaints_, SizeIs(1)) << "the same value again";
  garbage.mod_revision = 7;
  Events({Put(garbage)}, 7);
  EXPECT_THAT(complaints_, SizeIs(2)) << "another bad value";
  Events({Delete("s/x")}, 8);
  EXPECT_EQ(last_->skipped(), 0);
}

TEST_F(ServiceStateTest, AnEntryThatTurnsUnreadableLeavesAndMayComeBack) {
  List({Entry("10.0.0.1:80", 1)}, 5);
  KeyValue entry = Entry("10.0.0.1:80", 6);
  entry.value = "{";
  Events({Put(entry)}, 6);
  EXPECT_THAT(last_->instances(), IsEmpty());
  Events({Put(Entry("10.0.0.1:80", 7))}, 7);
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(last_->skipped(), 0);
}

TEST_F(ServiceStateTest, ALostConnectionMarksTheSetStaleAndEmptiesNothing) {
  List({Entry("10.0.0.1:80", 1)}, 5);
  EXPECT_FALSE(last_->stale_since().has_value());
  now_ += absl::Seconds(10);
  Connection(false);
  EXPECT_EQ(last_->stale_since(), now_);
  EXPECT_TRUE(delta_.empty());
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80"));
  const absl::Time since = now_;
  now_ += absl::Seconds(10);
  EXPECT_EQ(Connection(false), nullptr) << "nothing new";
  EXPECT_EQ(last_->stale_since(), since);
  Connection(true);
  EXPECT_FALSE(last_->stale_since().has_value());
}

TEST_F(ServiceStateTest, AWatchThatEndsLeavesAStaleSet) {
  List({Entry("10.0.0.1:80", 1)}, 5);
  WatchBatch end;
  end.status = absl::PermissionDeniedError("no");
  Apply(end);
  EXPECT_TRUE(last_->stale_since().has_value());
  EXPECT_THAT(last_->instances(), SizeIs(1));
  List({Entry("10.0.0.1:80", 1)}, 6);
  EXPECT_FALSE(last_->stale_since().has_value());
}

TEST_F(ServiceStateTest, NothingNewMakesNoSnapshot) {
  List({Entry("10.0.0.1:80", 1)}, 5);
  EXPECT_EQ(Events({}, 9), nullptr);
  EXPECT_EQ(Events({Put(Entry("10.0.0.1:80", 10))}, 10), nullptr) << "the same instance again";
}

TEST_F(ServiceStateTest, SnapshotsShareTheInstancesThatHaveNotChanged) {
  List({Entry("10.0.0.1:80", 1), Entry("10.0.0.2:80", 2)}, 5);
  const auto before = last_;
  Events({Put(Entry("10.0.0.2:80", 6, R"({"weight":5})"))}, 6);
  EXPECT_EQ(&before->instances()[0], &last_->instances()[0]);
  EXPECT_NE(&before->instances()[1], &last_->instances()[1]);
  EXPECT_FALSE(before->instances()[1].weight.has_value()) << "a snapshot does not change";
  List({Entry("10.0.0.1:80", 1), Entry("10.0.0.2:80", 6, R"({"weight":5})")}, 9);
  EXPECT_EQ(&before->instances()[0], &last_->instances()[0]) << "nor does a list copy anything";
}

TEST_F(ServiceStateTest, TheLastEventOfABatchWins) {
  List({Entry("10.0.0.1:80", 1)}, 5);
  Events({Delete("s/10.0.0.1:80"), Put(Entry("10.0.0.1:80", 7, "\"new\"")),
          Put(Entry("10.0.0.2:80", 8)), Delete("s/10.0.0.2:80")},
         9);
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(last_->instances()[0].raw_metadata, "\"new\"");
}

TEST_F(ServiceStateTest, AHugeValueIsLeftOut) {
  KeyValue huge = Entry("10.0.0.2:80", 2, "\"" + std::string(1 << 20, 'x') + "\"");
  List({Entry("10.0.0.1:80", 1), huge}, 5);
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(last_->skipped(), 1);
  ASSERT_THAT(complaints_, SizeIs(1));
  EXPECT_LT(complaints_[0].size(), 300u) << "the log does not get it either";
}

// ---- The shrink guard

class ShrinkGuardTest : public ServiceStateTest {
 protected:
  // Ten instances are known, then a list shows two.
  void SetUp() override {
    for (int i = 0; i < 10; ++i) ten_.push_back(Entry("10.0.0." + std::to_string(i) + ":80", 1));
    two_ = {ten_[0], ten_[1]};
    List(ten_, 5);
    now_ += absl::Seconds(100);
    suspected_at_ = now_;
    List(two_, 20);
  }
  void ExpectAllHeld() {
    EXPECT_THAT(last_->instances(), SizeIs(10));
    EXPECT_EQ(last_->held(), 8);
    EXPECT_EQ(last_->suspect_since(), suspected_at_);
  }
  void ExpectOnlyTwo() {
    EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.0:80", "10.0.0.1:80"));
    EXPECT_EQ(last_->held(), 0);
    EXPECT_FALSE(last_->suspect_since().has_value());
    EXPECT_FALSE(state_.NextTick().has_value());
  }

  std::vector<KeyValue> ten_;
  std::vector<KeyValue> two_;
  absl::Time suspected_at_;
};

TEST_F(ShrinkGuardTest, AListThatSuddenlyHasLessThanHalfIsSuspected) {
  ExpectAllHeld();
  EXPECT_TRUE(delta_.empty());
  EXPECT_EQ(last_->revision(), 20);
  EXPECT_EQ(state_.counters().holds, 1);
  EXPECT_EQ(state_.NextTick(), suspected_at_ + absl::Seconds(30));
}

TEST_F(ShrinkGuardTest, ExactlyHalfIsBelieved) {
  ServiceState state({.service = "s", .shrink_guard = 0.5});
  WatchBatch batch;
  batch.resynced = true;
  batch.revision = 1;
  batch.state = ten_;
  (void)state.Apply(batch, now_);
  batch.state.resize(5);
  (void)state.Apply(batch, now_);
  EXPECT_THAT(state.snapshot()->instances(), SizeIs(5));
  EXPECT_FALSE(state.snapshot()->suspect_since().has_value());
}

TEST_F(ShrinkGuardTest, WithoutAGuardEveryListIsBelieved) {
  ServiceState state({.service = "s", .shrink_guard = 0});
  WatchBatch batch;
  batch.resynced = true;
  batch.revision = 1;
  batch.state = ten_;
  (void)state.Apply(batch, now_);
  batch.state.clear();
  (void)state.Apply(batch, now_);
  EXPECT_THAT(state.snapshot()->instances(), IsEmpty());
}

TEST_F(ShrinkGuardTest, WhatIsHeldGoesWhenTheHoldTimeIsOver) {
  now_ += absl::Seconds(29);
  EXPECT_EQ(Tick(), nullptr);
  ExpectAllHeld();
  now_ += absl::Seconds(1);
  EXPECT_NE(Tick(), nullptr);
  ExpectOnlyTwo();
  EXPECT_THAT(delta_.removed, SizeIs(8));
}

TEST_F(ShrinkGuardTest, TheHoldTimeDoesNotEndWhileTheClusterIsOutOfReach) {
  Connection(false);
  EXPECT_FALSE(state_.NextTick().has_value());
  now_ += absl::Minutes(10);
  EXPECT_EQ(Tick(), nullptr);
  ExpectAllHeld();
  Connection(true);
  EXPECT_NE(Tick(), nullptr);
  ExpectOnlyTwo();
}

TEST_F(ShrinkGuardTest, DeletionsThatAreSeenAreHonouredAtOnce) {
  Events({Delete("s/10.0.0.5:80"), Delete("s/10.0.0.0:80")}, 21);
  EXPECT_THAT(Addresses(delta_.removed), ElementsAre("10.0.0.0:80", "10.0.0.5:80"));
  EXPECT_THAT(last_->instances(), SizeIs(8));
  EXPECT_EQ(last_->held(), 7);
  EXPECT_TRUE(last_->suspect_since().has_value());
}

TEST_F(ShrinkGuardTest, OneThatRegistersAgainIsNoLongerHeld) {
  std::vector<WatchEvent> back;
  for (int i = 2; i < 10; ++i) back.push_back(Put(Entry(ten_[i].key.substr(2), 30)));
  const WatchEvent last = back.back();
  back.pop_back();
  Events(back, 30);
  EXPECT_EQ(last_->held(), 1);
  EXPECT_TRUE(delta_.empty()) << "nobody was gone";
  Events({last}, 31);
  EXPECT_EQ(last_->held(), 0);
  EXPECT_FALSE(last_->suspect_since().has_value());
  now_ += absl::Minutes(1);
  EXPECT_EQ(Tick(), nullptr);
  EXPECT_THAT(last_->instances(), SizeIs(10));
}

TEST_F(ShrinkGuardTest, ASecondListConfirmsButNotTooSoon) {
  now_ += absl::Seconds(1);
  List(two_, 22);
  ExpectAllHeld();
  EXPECT_EQ(Confirm(two_), nullptr) << "a list of the same breath";
  now_ = suspected_at_ + absl::Seconds(15);
  EXPECT_EQ(state_.NextConfirm(), now_);
  // One of them is listed again, and its event is still on its way.
  std::vector<KeyValue> three = two_;
  three.push_back(ten_[7]);
  EXPECT_NE(Confirm(three), nullptr);
  EXPECT_THAT(Addresses(last_->instances()),
              ElementsAre("10.0.0.0:80", "10.0.0.1:80", "10.0.0.7:80"));
  EXPECT_EQ(last_->held(), 1);
  List(two_, 23);
  ExpectOnlyTwo();
}

TEST_F(ShrinkGuardTest, AListThatHasThemAgainEndsTheSuspicion) {
  List(ten_, 25);
  EXPECT_THAT(last_->instances(), SizeIs(10));
  EXPECT_EQ(last_->held(), 0);
  EXPECT_FALSE(last_->suspect_since().has_value());
}

TEST_F(ShrinkGuardTest, EvenAnEmptyListIsHeldAndANewcomerIsShown) {
  List({}, 30);
  EXPECT_THAT(last_->instances(), SizeIs(10));
  EXPECT_EQ(last_->held(), 10);
  Events({Put(Entry("10.0.1.1:80", 31))}, 31);
  EXPECT_THAT(Addresses(delta_.added), ElementsAre("10.0.1.1:80"));
  EXPECT_EQ(last_->held(), 10);
}

// ---- What was saved

TEST_F(ServiceStateTest, ASavedSetIsShownStaleAndReplacedByTheFirstListUnguarded) {
  ServiceState before({.service = "s"});
  WatchBatch batch;
  batch.resynced = true;
  batch.revision = 7;
  for (int i = 0; i < 4; ++i) {
    batch.state.push_back(Entry("10.0.0." + std::to_string(i) + ":80", 1));
  }
  (void)before.Apply(batch, now_);
  const absl::Time saved_at = now_ - absl::Hours(2);
  Take(state_.Restore(7, before.snapshot()->instances(), saved_at));
  EXPECT_TRUE(last_->known());
  EXPECT_TRUE(last_->from_cache());
  EXPECT_EQ(last_->stale_since(), saved_at);
  EXPECT_EQ(last_->revision(), 7);
  EXPECT_THAT(last_->instances(), SizeIs(4));
  EXPECT_EQ(Connection(false), nullptr) << "that is known already";
  List({Entry("10.0.0.9:80", 8)}, 9);
  EXPECT_FALSE(last_->from_cache());
  EXPECT_FALSE(last_->stale_since().has_value());
  EXPECT_THAT(Addresses(last_->instances()), ElementsAre("10.0.0.9:80"));
  EXPECT_EQ(state_.Restore(7, before.snapshot()->instances(), saved_at).snapshot, nullptr)
      << "only before anything is known";
}

TEST(ParseServiceTargetTest, TakesPlainNamesAndEtcdTargets) {
  EXPECT_EQ(*ParseServiceTarget("my-service"), "my-service");
  EXPECT_EQ(*ParseServiceTarget("etcd:///my-service"), "my-service");
  EXPECT_EQ(*ParseServiceTarget("etcd:///team/my-service"), "team/my-service");
  for (const char* bad : {"", "/", "a/", "/a", "etcd:///", "etcd:///a/"}) {
    EXPECT_EQ(ParseServiceTarget(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace conclave
