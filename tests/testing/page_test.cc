// What docs/testing.md shows is so.
#include <gtest/gtest.h>

#include "testing_page_blocks.h"

namespace {

TEST(TestingPageTest, AHolderThatIsCutOffStopsInTime) { EXPECT_TRUE(block_1::HolderStopsInTime()); }

TEST(TestingPageTest, AnUnknownOutcomeIsToldAsSuch) {
  EXPECT_TRUE(block_2::AnUnknownOutcomeIsToldAsSuch());
}

TEST(TestingPageTest, AnEmbeddedServerRunsAnywhere) {
  const absl::Status status = block_3::RunsAnywhere();
  EXPECT_TRUE(status.ok()) << status;
}

TEST(TestingPageTest, AClusterSurvivesItsLeader) {
  const absl::Status status = block_4::SurvivesItsLeader();
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
