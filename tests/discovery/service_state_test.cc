// From watch batches to snapshots and deltas, without a server.
#include "conclave/discovery/service_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

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

std::vector<std::string> Addresses(const std::vector<Instance>& instances) {
  std::vector<std::string> addresses;
  for (const Instance& instance : instances) addresses.push_back(instance.address);
  return addresses;
}

class ServiceStateTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Snapshot> Apply(const WatchBatch& batch) {
    ServiceState::Change change = state_.Apply(batch, now_);
    complaints_.insert(complaints_.end(), change.complaints.begin(), change.complaints.end());
    if (change.snapshot != nullptr) {
      delta_ = ServiceState::Difference(*last_, *change.snapshot);
      last_ = change.snapshot;
    }
    return change.snapshot;
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

  ServiceState state_{"s"};
  std::shared_ptr<const Snapshot> last_ = state_.Unknown();
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
