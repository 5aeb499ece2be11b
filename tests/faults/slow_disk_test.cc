// A real leader whose disk has become slow, under load: it hands over to a member whose disk is
// good, by its own decision and without a gap, and nothing is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "conclave/tests/app/server_process.h"
#include "conclave/tests/faults/acknowledged_writes.h"
#include "conclave/tests/support/strace.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(90);
constexpr char kHandsOver[] = "handing over the leadership, because this member's disk is slow";

TEST(SlowDiskTest, ALeaderWhoseDiskIsSlowHandsOver) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  if (const absl::Status can = CanTrace(); !can.ok()) GTEST_SKIP() << can;
  // An election timeout that a busy machine does not reach by itself.
  auto started = TestCluster::Start(
      {.kind = ServerKind::kConclave, .members = 3, .heartbeat_ms = 100, .election_ms = 2000});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  auto writes = AcknowledgedWrites::Start(cluster);
  ASSERT_TRUE(writes.ok()) << writes.status();
  ASSERT_TRUE(WaitFor([&] { return (*writes)->count() >= 100; }, kPatience));
  const absl::StatusOr<int> slow = cluster.Leader();
  ASSERT_TRUE(slow.ok()) << slow.status();
  const auto says_so = [&](int member) {
    return ReadFile(cluster.log_path(member)).find(kHandsOver) != std::string::npos;
  };
  ASSERT_FALSE(says_so(*slow));

  // Longer than half an election timeout, which is what counts as slow.
  auto tracer = DelayAll("fdatasync,fsync", absl::Milliseconds(1500), cluster.pid(*slow));
  ASSERT_TRUE(tracer.ok()) << tracer.status();
  ASSERT_TRUE(WaitFor([&] { return says_so(*slow); }, kPatience))
      << ReadFile(cluster.log_path(*slow));
  ASSERT_TRUE(WaitFor(
      [&] {
        const absl::StatusOr<int> leads = cluster.Leader();
        return leads.ok() && *leads != *slow;
      },
      kPatience));
  const size_t before = (*writes)->count();
  EXPECT_TRUE(WaitFor([&] { return (*writes)->count() >= before + 100; }, kPatience));
  for (int member = 0; member < cluster.size(); ++member) {
    EXPECT_EQ(says_so(member), member == *slow) << member;
  }

  // It has been a member all the time.
  tracer->reset();
  (*writes)->End();
  ASSERT_TRUE(cluster.WaitAllHealthy(kPatience).ok());
  const absl::StatusOr<int> lost = (*writes)->CountLost(cluster);
  ASSERT_TRUE(lost.ok()) << lost.status();
  EXPECT_EQ(*lost, 0);
}

}  // namespace
}  // namespace conclave::testing
