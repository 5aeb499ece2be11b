// The test clusters themselves: members start, die, pause and come back.
#include "conclave/tests/support/test_cluster.h"

#include "conclave/tests/support/probe.h"
#include "gtest/gtest.h"

namespace conclave::testing {
namespace {

class TestClusterTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(TestClusterTest, AMemberSurvivesKillAndRestart) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  // etcdctl gives up after 5 s where a leader is just being elected: ask until it succeeds.
  ASSERT_TRUE(WaitFor([&] { return Etcdctl(*cluster, {"put", "a", "1"}).ok(); }));
  const int victim = cluster->size() - 1;
  cluster->Kill(victim);
  EXPECT_FALSE(ProbeLinearizableRead(cluster->endpoint(victim), absl::Milliseconds(200)).ok());
  ASSERT_TRUE(cluster->Restart(victim).ok());
  absl::Status healthy = cluster->WaitAllHealthy();
  ASSERT_TRUE(healthy.ok()) << healthy;
  absl::StatusOr<std::string> value = absl::UnknownError("not asked");
  ASSERT_TRUE(WaitFor(
      [&] {
        value = Etcdctl(*cluster, {"get", "a", "--print-value-only"});
        return value.ok();
      },
      absl::Seconds(20)))
      << value.status();
  EXPECT_EQ(*value, "1\n");
  EXPECT_TRUE(cluster->Leader().ok());
}

TEST_P(TestClusterTest, APausedMemberDoesNotAnswer) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  cluster->Pause(0);
  EXPECT_FALSE(ProbeLinearizableRead(cluster->endpoint(0), absl::Milliseconds(200)).ok());
  cluster->Resume(0);
  absl::Status healthy = cluster->WaitAllHealthy();
  EXPECT_TRUE(healthy.ok()) << healthy;
}

INSTANTIATE_TEST_SUITE_P(Servers, TestClusterTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave::testing
