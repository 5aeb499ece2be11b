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
void Spoil(Trio& trio, size_t member, const std::string& key = "spoiled") {
  auto& store = const_cast<mvcc::Store&>(trio.node(member).state().store());
  mvcc::WriteTxn txn = store.Begin();
  txn.Put(key, "value", 0);
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
  // It is nothing that keeps them from serving.
  EXPECT_FALSE(trio.StatsOf(other)->HasAlarm(kCorrupt));
  EXPECT_TRUE(Put(trio, other, "meanwhile"));
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
int LinesOf(const Trio& trio, size_t member, const std::string& beginning) {
  const std::vector<LogLine>& log = trio.log(member);
  return static_cast<int>(std::count_if(log.begin(), log.end(), [&](const LogLine& line) {
    return line.message.starts_with(beginning);
  }));
}

constexpr char kNoEvidence[] = "the state that differs could not be written down";

// A disk that is full has made room when it has failed once.
TEST(DivergenceTest, EvidenceThatCannotBeWrittenIsTriedOnceMore) {
  Trio trio;
  const size_t spoiled = trio.follower();
  trio.FailSnapshot(spoiled);
  ExpectFoundAndRefilled(trio, spoiled);
  EXPECT_EQ(LinesOf(trio, spoiled, kNoEvidence), 0);
}

TEST(DivergenceTest, IsMendedWithoutEvidenceAndSaysSo) {
  Trio trio;
  const size_t spoiled = trio.follower();
  trio.FailSnapshot(spoiled, 2);
  ExpectFoundAndRefilled(trio, spoiled);
  EXPECT_EQ(LinesOf(trio, spoiled, kNoEvidence), 1);
}

TEST(DivergenceTest, ADiskThatStandsStillDoesNotHoldItUpForLong) {
  Trio trio;
  const size_t spoiled = trio.follower();
  trio.StallSnapshots(spoiled);
  Spoil(trio, spoiled);
  trio.Advance(seconds(5));
  EXPECT_FALSE(trio.diverged(spoiled));
  trio.Advance(seconds(10));
  EXPECT_TRUE(trio.diverged(spoiled));
  EXPECT_EQ(LinesOf(trio, spoiled, kNoEvidence), 1);
}

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

// Of three that all differ as well. It takes a while, for the one that finds it could be the only
// one that is wrong.
TEST(DivergenceTest, WithoutAMajorityWritesStop) {
  Trio trio;
  ASSERT_TRUE(Put(trio, trio.leader(), "key"));
  const size_t leader = trio.leader();
  Spoil(trio, (leader + 1) % 3, "this");
  Spoil(trio, (leader + 2) % 3, "that");
  for (int i = 0; i < 100 && !trio.StatsOf(leader)->HasAlarm(kCorrupt); ++i) {
    trio.Advance(milliseconds(100));
  }
  EXPECT_TRUE(trio.StatsOf(leader)->HasAlarm(kCorrupt));
  for (size_t member = 0; member < trio.size(); ++member) EXPECT_FALSE(trio.diverged(member));
  EXPECT_FALSE(Put(trio, leader, "more"));
}

// The operator's own alarm stops the writes of a cluster in which a member is being refilled.
TEST(DivergenceTest, AnAlarmOfTheOperatorsStopsWrites) {
  Trio trio;
  const size_t spoiled = trio.follower();
  Spoil(trio, spoiled);
  const size_t leader = trio.leader();
  for (int i = 0; i < 100 && !HasAlarm(trio, leader, kCorrupt); ++i) {
    trio.Advance(milliseconds(100));
  }
  ASSERT_TRUE(Put(trio, leader, "key"));
  etcdserverpb::AlarmRequest raise;
  raise.set_action(etcdserverpb::AlarmRequest::ACTIVATE);
  raise.set_memberid(trio.options(spoiled).id.value());
  raise.set_alarm(etcdserverpb::CORRUPT);
  ASSERT_EQ(trio.Call(leader, Method::kAlarm, raise.SerializeAsString()).error, nullptr);
  EXPECT_FALSE(Put(trio, leader, "key"));
  trio.Refill(spoiled);
  trio.Advance(seconds(10));
  // Nobody takes it back but the operator.
  EXPECT_TRUE(trio.StatsOf(leader)->HasAlarm(kCorrupt));
  raise.set_action(etcdserverpb::AlarmRequest::DEACTIVATE);
  ASSERT_EQ(trio.Call(leader, Method::kAlarm, raise.SerializeAsString()).error, nullptr);
  EXPECT_TRUE(Put(trio, leader, "key"));
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

// ---- Memory that changes by itself ----

void FlipABit(Trio& trio, size_t member, const std::string& key) {
  const mvcc::Record* record = trio.node(member).state().store().Get(key);
  ASSERT_NE(record, nullptr);
  const_cast<char&>(record->value()[0]) ^= 1;
}

TEST(MemoryCheckTest, ABitThatChangedIsFoundWhileWritesGoOn) {
  constexpr Duration kInterval = std::chrono::minutes(10);
  Trio trio;
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(Put(trio, trio.leader(), std::to_string(i)));
  const size_t follower = trio.follower();
  const Instant end = trio.now() + 2 * kInterval + seconds(10);
  bool flipped = false;
  for (int i = 0; trio.now() < end && !trio.wants_reload(follower); ++i) {
    trio.Send(trio.leader(), Method::kPut, PutRequest(std::to_string(i % 900), "value"));
    trio.Advance(milliseconds(500));
    if (!flipped && trio.StatsOf(follower)->memory_checks == 1) {
      FlipABit(trio, follower, "950");
      flipped = true;
    }
  }
  EXPECT_TRUE(flipped);
  EXPECT_TRUE(trio.wants_reload(follower));
  // Nobody is told what is wrong, and nothing that is right is set aside.
  const Reply refused = trio.Call(follower, Method::kRange, RangeRequest("950"));
  ASSERT_NE(refused.error, nullptr);
  EXPECT_EQ(refused.error->message, wire::kErrCorrupt.message);
  EXPECT_FALSE(trio.diverged(follower));
  for (size_t member = 0; member < trio.size(); ++member) {
    EXPECT_EQ(trio.wants_reload(member), member == follower);
  }
  EXPECT_TRUE(Put(trio, trio.leader(), "after"));
}

// ---- Files that change by themselves ----

TEST(FileCheckTest, NewSnapshotsReplaceWhatIsDamaged) {
  Trio trio(3, [](Options* options) { options->file_check_interval = std::chrono::minutes(1); });
  const size_t member = trio.follower();
  ASSERT_TRUE(Put(trio, member, "before"));
  trio.DamageFile(member);
  trio.Advance(trio.options(member).file_check_interval + seconds(1));
  EXPECT_EQ(trio.StatsOf(member)->files_damaged, 1u);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Put(trio, member, std::to_string(i)));
    trio.Advance(seconds(1));
  }
  EXPECT_EQ(trio.StatsOf(member)->snapshots_saved, 2u);
  EXPECT_EQ(trio.StatsOf(member)->file_checks, 1u);  // the next one is a minute later
  EXPECT_EQ(trio.StatsOf(trio.leader())->files_damaged, 0u);
  EXPECT_EQ(trio.StatsOf(trio.leader())->snapshots_saved, 0u);
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

TEST(FullDiskTest, AStateThatCouldNotBeSavedIsSentAgainSoon) {
  Trio trio;
  const size_t whole = trio.leader();
  const size_t follower = trio.follower();
  ASSERT_TRUE(Put(trio, whole, "key"));
  trio.FailSnapshot(follower);
  trio.Refill(follower);
  const auto is_filled = [&] {
    return trio.StatsOf(follower)->digest == trio.StatsOf(whole)->digest;
  };
  ASSERT_FALSE(is_filled());
  for (int i = 0; i < 50 && !is_filled(); ++i) trio.Advance(milliseconds(100));
  EXPECT_TRUE(is_filled());
}

// In its next life the member has to hear first what stands.
TEST(FullDiskTest, AnAlarmOfAnEarlierLifeIsTakenBackByWhoHasForgottenIt) {
  Trio trio;
  const size_t full = trio.follower();
  const size_t other = trio.leader();
  trio.Put(full, DiskSpace{.full = true, .tight = false});
  for (int i = 0; i < 50 && !HasAlarm(trio, other, kNoSpace); ++i) {
    trio.Advance(milliseconds(100));
  }
  ASSERT_TRUE(HasAlarm(trio, other, kNoSpace));
  trio.FailSnapshot(full);
  trio.Refill(full);
  trio.Put(full, DiskSpace{});
  for (int i = 0; i < 100 && HasAlarm(trio, other, kNoSpace); ++i) {
    trio.Advance(milliseconds(100));
  }
  EXPECT_FALSE(HasAlarm(trio, other, kNoSpace));
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
