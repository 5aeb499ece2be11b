// The test clusters themselves: members start, die, pause and come back.
#include "conclave/tests/support/test_cluster.h"

#include "conclave/tests/support/probe.h"
#include "gtest/gtest.h"

namespace conclave::testing {
namespace {

class TestClusterTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(TestClusterTest, AMemberSurvivesKillAndRestart) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  ASSERT_TRUE(Etcdctl(*cluster, {"put", "a", "1"}).ok());
  const int victim = cluster->size() - 1;
  cluster->Kill(victim);
  EXPECT_FALSE(ProbeLinearizableRead(cluster->endpoint(victim), absl::Milliseconds(200)).ok());
  ASSERT_TRUE(cluster->Restart(victim).ok());
  absl::Status healthy = cluster->WaitAllHealthy();
  ASSERT_TRUE(healthy.ok()) << healthy;
  absl::StatusOr<std::string> value = Etcdctl(*cluster, {"get", "a", "--print-value-only"});
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(*value, "1\n");
  EXPECT_TRUE(cluster->Leader().ok());
}

TEST_P(TestClusterTest, APausedMemberDoesNotAnswer) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  cluster->Pause(0);
  EXPECT_FALSE(ProbeLinearizableRead(cluster->endpoint(0), absl::Milliseconds(200)).ok());
  cluster->Resume(0);
  EXPECT_TRUE(cluster->WaitAllHealthy().ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, TestClusterTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave::testing
