// A minute of everything at once on real processes. For longer, and for etcd: nemesis_run.
#include <gtest/gtest.h>

#include "conclave/tests/nemesis/run.h"

namespace conclave::nemesis {
namespace {

TEST(NemesisTest, NothingIsLostStaleOrHeldTwiceInAMinuteOfFaults) {
  const absl::StatusOr<Report> report = nemesis::Run({.duration = absl::Minutes(1), .seed = 20});
  if (absl::IsNotFound(report.status())) GTEST_SKIP() << report.status();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->complaints.empty()) << Describe(*report);
  // Else it has shown nothing.
  EXPECT_GT(report->counts.done, 500) << Describe(*report);
  EXPECT_GT(report->counts.leases, 5u) << Describe(*report);
  EXPECT_GT(report->counts.holdings, 20u) << Describe(*report);
  EXPECT_GE(report->faults.size(), 8u) << Describe(*report);
}

TEST(NemesisTest, ASingleMemberForgetsNothing) {
  const absl::StatusOr<Report> report =
      nemesis::Run({.members = 1, .duration = absl::Seconds(15), .seed = 21});
  if (absl::IsNotFound(report.status())) GTEST_SKIP() << report.status();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->complaints.empty()) << Describe(*report);
  EXPECT_GT(report->counts.done, 50) << Describe(*report);
}

}  // namespace
}  // namespace conclave::nemesis
