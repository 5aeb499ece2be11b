// A leader whose disk is slow, and followers whose disks are better or not.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "conclave/api/rpc.pb.h"
#include "conclave/server/node/disk_watch.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string PutRequest(int number) {
  etcdserverpb::PutRequest request;
  request.set_key("key-" + std::to_string(number));
  request.set_value("value");
  return request.SerializeAsString();
}

// Clients write on a member, twenty times a second.
void Write(Trio& trio, size_t member, Duration duration) {
  const Instant end = trio.now() + duration;
  for (int i = 0; trio.now() < end; ++i) {
    trio.Send(member, Method::kPut, PutRequest(i));
    trio.Advance(milliseconds(50));
  }
}

bool HasSaid(const Trio& trio, size_t member) {
  return std::any_of(trio.log(member).begin(), trio.log(member).end(), [](const LogLine& line) {
    return line.message == "handing over the leadership, because this member's disk is slow";
  });
}

TEST(SlowDiskTest, TheLeaderHandsOverOnceAndForAll) {
  Trio trio;
  const size_t slow = trio.leader();
  const uint64_t term = trio.node(slow).raft_status().term.value();
  trio.SlowDisk(slow, milliseconds(700));
  Write(trio, slow, seconds(12));
  EXPECT_TRUE(HasSaid(trio, slow));
  EXPECT_NE(trio.leader(), slow);
  const size_t heir = trio.leader();
  Write(trio, slow, seconds(60));
  EXPECT_EQ(trio.leader(), heir);
  EXPECT_EQ(trio.node(heir).raft_status().term.value(), term + 1);
}

TEST(SlowDiskTest, SoDoesOneWhoseDiskStandsStill) {
  Trio trio;
  const size_t slow = trio.leader();
  trio.SlowDisk(slow, seconds(20));
  Write(trio, slow, seconds(12));
  EXPECT_TRUE(HasSaid(trio, slow));
  EXPECT_NE(trio.leader(), slow);
}

TEST(SlowDiskTest, NobodyGoesUnlessAMajorityIsBetter) {
  Trio trio;
  const size_t leader = trio.leader();
  for (size_t member = 0; member < trio.size(); ++member) {
    trio.SlowDisk(member, milliseconds(700));
  }
  Write(trio, leader, seconds(30));
  EXPECT_EQ(trio.leader(), leader);
  EXPECT_FALSE(HasSaid(trio, leader));
  // One of them is mended: it would wait for another's vote for long.
  trio.SlowDisk((leader + 1) % 3, Duration::zero());
  Write(trio, leader, seconds(40));
  EXPECT_EQ(trio.Leader(), leader);
  trio.SlowDisk((leader + 2) % 3, Duration::zero());
  Write(trio, leader, seconds(40));
  ASSERT_TRUE(trio.Leader().has_value());
  EXPECT_NE(trio.Leader(), leader);
}

TEST(SlowDiskTest, ADiskThatIsSlowNowAndThenIsGoodEnough) {
  Trio trio;
  const size_t leader = trio.leader();
  for (int i = 0; i < 5; ++i) {
    trio.SlowDisk(leader, milliseconds(900));
    Write(trio, leader, milliseconds(900));
    trio.SlowDisk(leader, Duration::zero());
    Write(trio, leader, seconds(5));
  }
  EXPECT_EQ(trio.leader(), leader);
}

// The two best candidates take turns in being slow: each goes once a minute at most.
TEST(SlowDiskTest, TheLeadershipDoesNotFlap) {
  Trio trio;
  const uint64_t term = trio.node(trio.leader()).raft_status().term.value();
  for (int i = 0; i < 12; ++i) {
    for (size_t member = 0; member < trio.size(); ++member) {
      trio.SlowDisk(member, member == trio.leader() ? milliseconds(700) : Duration::zero());
    }
    Write(trio, trio.leader(), seconds(10));
  }
  // Two minutes, three members.
  EXPECT_LE(trio.node(trio.leader()).raft_status().term.value(), term + 6);
}

TEST(DiskWatchTest, CountsWhatIsStillUnderWay) {
  Instant now{};
  DiskWatch watch(milliseconds(500), now);
  watch.Written(1, now);
  for (int i = 0; i < 65; ++i) watch.Look(now += milliseconds(100));
  EXPECT_TRUE(watch.is_slow(now));
  EXPECT_TRUE(watch.should_not_lead());
  watch.Synced(1, seconds(6), now);
  // The window in which it came to its end is a bad one still.
  for (int i = 0; i < 65; ++i) watch.Look(now += milliseconds(100));
  EXPECT_FALSE(watch.should_not_lead());
  EXPECT_TRUE(watch.is_slow(now));
  for (int i = 0; i < 200; ++i) watch.Look(now += milliseconds(100));
  EXPECT_FALSE(watch.is_slow(now));
}

}  // namespace
}  // namespace conclave::node
