// States that differ, and disks that are full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string PutRequest(const std::string& key, const std::string& value) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  return request.SerializeAsString();
}
std::string RangeRequest(const std::string& key) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  return request.SerializeAsString();
}
std::string DeleteRequest(const std::string& key) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(key);
  return request.SerializeAsString();
}

bool Put(Trio& trio, size_t member, const std::string& key) {
  return trio.Call(member, Method::kPut, PutRequest(key, "value")).error == nullptr;
}

// What a bad memory does, or a bug: the state of one member is another from here on.
void Spoil(Trio& trio, size_t member) {
  auto& store = const_cast<mvcc::Store&>(trio.node(member).state().store());
  mvcc::WriteTxn txn = store.Begin();
  txn.Put("spoiled", "value", 0);
  txn.Commit();
}

bool HasAlarm(Trio& trio, size_t member, int type) {
  const auto stats = trio.StatsOf(member);
  return std::any_of(stats->alarms.begin(), stats->alarms.end(),
                     [&](const AlarmStats& alarm) { return alarm.type == type; });
}

constexpr int kNoSpace = 1;
constexpr int kCorrupt = 2;

void ExpectFoundAndRefilled(Trio& trio, size_t spoiled) {
  const size_t other = (spoiled + 1) % trio.size();
  Spoil(trio, spoiled);
  const Instant then = trio.now();
  for (int i = 0; i < 50 && !trio.diverged(spoiled); ++i) trio.Advance(milliseconds(100));
  ASSERT_TRUE(trio.diverged(spoiled));
  EXPECT_LE(trio.now() - then, seconds(2));
  // Nothing wrong is told any more.
  const Reply refused = trio.Call(spoiled, Method::kRange, RangeRequest("spoiled"));
  ASSERT_NE(refused.error, nullptr);
  EXPECT_EQ(refused.error->message, wire::kErrCorrupt.message);
  // The others know of it, and go on.
  for (int i = 0; i < 100 && !HasAlarm(trio, other, kCorrupt); ++i) trio.Advance(milliseconds(100));
  EXPECT_TRUE(HasAlarm(trio, other, kCorrupt));
  trio.Refill(spoiled);
  for (int i = 0; i < 200 && HasAlarm(trio, other, kCorrupt); ++i) trio.Advance(milliseconds(100));
  EXPECT_FALSE(HasAlarm(trio, other, kCorrupt));
  EXPECT_TRUE(Put(trio, other, "after"));
  trio.Advance(seconds(3));
  for (size_t member = 0; member < trio.size(); ++member) {
    EXPECT_EQ(trio.StatsOf(member)->digest, trio.StatsOf(other)->digest);
    EXPECT_FALSE(trio.diverged(member));
    EXPECT_FALSE(trio.StatsOf(member)->awaits_repair);
  }
}

TEST(DivergenceTest, AFollowerThatDiffersIsFoundAndRefilled) {
  Trio trio;
  ASSERT_TRUE(Put(trio, trio.leader(), "key"));
  ExpectFoundAndRefilled(trio, trio.follower());
}

TEST(DivergenceTest, SoIsALeader) {
  Trio trio;
  ASSERT_TRUE(Put(trio, trio.leader(), "key"));
  ExpectFoundAndRefilled(trio, trio.leader());
}

TEST(DivergenceTest, OneOfFiveAsWell) {
  Trio trio(5);
  ASSERT_TRUE(Put(trio, trio.leader(), "key"));
  ExpectFoundAndRefilled(trio, trio.follower());
}

// Of two nobody can say which one is wrong: the alarm stops the writes, and both stay.
TEST(DivergenceTest, OfTwoNeitherIsSetAside) {
  Trio trio(2);
  ASSERT_TRUE(Put(trio, trio.leader(), "key"));
  Spoil(trio, trio.follower());
  for (int i = 0; i < 50 && !HasAlarm(trio, 0, kCorrupt); ++i) trio.Advance(milliseconds(100));
  EXPECT_TRUE(HasAlarm(trio, 0, kCorrupt));
  EXPECT_FALSE(trio.diverged(0));
  EXPECT_FALSE(trio.diverged(1));
  EXPECT_FALSE(Put(trio, 0, "more"));
}

// Under load members are at different indices whenever they look.
TEST(DivergenceTest, IsFoundWhileWritesGoOn) {
  Trio trio;
  const size_t spoiled = trio.follower();
  Spoil(trio, spoiled);
  for (int i = 0; i < 200 && !trio.diverged(spoiled); ++i) {
    trio.Send(trio.leader(), Method::kPut, PutRequest(std::to_string(i), "value"));
    trio.Advance(milliseconds(10));
  }
  EXPECT_TRUE(trio.diverged(spoiled));
}

TEST(FullDiskTest, WritesAreRefusedUntilThereIsRoom) {
  Trio trio;
  const size_t full = trio.follower();
  ASSERT_TRUE(Put(trio, full, "key"));
  trio.Put(full, DiskSpace{.full = true, .tight = false});
  trio.Settle();
  const Reply refused = trio.Call(full, Method::kPut, PutRequest("more", "value"));
  ASSERT_NE(refused.error, nullptr);
  EXPECT_EQ(refused.error->message, wire::kErrNoSpace.message);
  EXPECT_TRUE(trio.StatsOf(full)->disk_full);
  // For everybody, as soon as the alarm is known.
  for (int i = 0; i < 50 && !HasAlarm(trio, trio.leader(), kNoSpace); ++i) {
    trio.Advance(milliseconds(100));
  }
  const Reply also = trio.Call(trio.leader(), Method::kPut, PutRequest("more", "value"));
  ASSERT_NE(also.error, nullptr);
  EXPECT_EQ(also.error->message, wire::kErrNoSpace.message);
  // What frees something goes on, and reads do.
  EXPECT_EQ(trio.Call(full, Method::kRange, RangeRequest("key")).error, nullptr);
  EXPECT_EQ(trio.Call(full, Method::kDeleteRange, DeleteRequest("key")).error, nullptr);
  trio.Put(full, DiskSpace{});
  for (int i = 0; i < 50 && HasAlarm(trio, full, kNoSpace); ++i) trio.Advance(milliseconds(100));
  EXPECT_FALSE(HasAlarm(trio, full, kNoSpace));
  EXPECT_TRUE(Put(trio, full, "more"));
}

// Somebody else's alarm is not taken back.
TEST(FullDiskTest, AnAlarmOfTheOperatorsStays) {
  Trio trio;
  trio.Put(0, DiskSpace{});
  trio.Advance(seconds(3));
  etcdserverpb::AlarmRequest raise;
  raise.set_action(etcdserverpb::AlarmRequest::ACTIVATE);
  raise.set_memberid(trio.options(0).id.value());
  raise.set_alarm(etcdserverpb::NOSPACE);
  ASSERT_EQ(trio.Call(0, Method::kAlarm, raise.SerializeAsString()).error, nullptr);
  trio.Put(0, DiskSpace{.full = false, .tight = true});
  trio.Put(0, DiskSpace{});
  trio.Advance(seconds(3));
  EXPECT_TRUE(HasAlarm(trio, 0, kNoSpace));
}

}  // namespace
}  // namespace conclave::node
