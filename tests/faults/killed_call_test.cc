// A real member that is killed at the n-th of its own system calls that change its disk, under
// load, with snapshots and new segments all the time: it starts again unaided, and nothing that was
// acknowledged is lost. The crash matrix (tests/crash) goes through all places; here a few of them
// are real files and a real kernel.
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/faults/acknowledged_writes.h"
#include "conclave/tests/support/strace.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr size_t kWritesMore = 50;

struct Place {
  std::string call;
  int n = 1;
};
// Counted in each thread of the member by itself, from its start on: the first ones are of its
// recovery.
const std::vector<Place>& Places() {
  static const auto& places = *new std::vector<Place>{
      {"pwritev", 1},    {"pwritev", 9}, {"pwritev", 60}, {"fdatasync", 2}, {"fdatasync", 40},
      {"fdatasync", 41}, {"rename", 1},  {"rename", 2},   {"unlink", 1},    {"fsync", 2}};
  return places;
}

TEST(KilledCallTest, AMemberThatDiesAtAnyOfItsCallsComesBackWithoutALoss) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  if (const absl::Status can = CanTrace(); !can.ok()) GTEST_SKIP() << can;
  auto started = TestCluster::Start(
      {.kind = ServerKind::kConclave,
       .members = 3,
       .extra_flags = {"--snapshot-count=20", "--conclave-log-segment-bytes=1048576"}});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  auto writes = AcknowledgedWrites::Start(cluster);
  ASSERT_TRUE(writes.ok()) << writes.status();
  const auto more = [&](size_t than) { return (*writes)->count() >= than + kWritesMore; };
  int killed = 0;
  for (const Place& place : Places()) {
    SCOPED_TRACE(absl::StrCat(place.call, " number ", place.n));
    const int victim = killed % cluster.size();
    cluster.Kill(victim);
    ASSERT_TRUE(cluster.Restart(victim, KillingAt(place.call, place.n)).ok());
    const absl::StatusOr<int> end = cluster.WaitEnd(victim, kPatience);
    ASSERT_TRUE(end.ok()) << end.status();
    ASSERT_EQ(*end, -SIGKILL);
    ++killed;
    ASSERT_TRUE(cluster.Restart(victim).ok());
    const absl::Status healthy = cluster.WaitHealthy(victim, kPatience);
    ASSERT_TRUE(healthy.ok()) << healthy;
    const size_t before = (*writes)->count();
    ASSERT_TRUE(WaitFor([&] { return more(before); }, kPatience));
  }
  (*writes)->End();
  ASSERT_TRUE(cluster.WaitAllHealthy(kPatience).ok());
  const absl::StatusOr<int> lost = (*writes)->CountLost(cluster);
  ASSERT_TRUE(lost.ok()) << lost.status();
  EXPECT_EQ(*lost, 0) << "of " << (*writes)->count();
}

}  // namespace
}  // namespace conclave::testing
