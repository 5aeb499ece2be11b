#include "conclave/api/wire/timeout.h"

#include <gtest/gtest.h>

#include <chrono>

namespace conclave::wire {
namespace {

TEST(TimeoutTest, EveryUnitOfGrpcIsRead) {
  EXPECT_EQ(ParseTimeout("2H"), std::chrono::hours(2));
  EXPECT_EQ(ParseTimeout("3M"), std::chrono::minutes(3));
  EXPECT_EQ(ParseTimeout("00000004S"), std::chrono::seconds(4));
  EXPECT_EQ(ParseTimeout("500m"), std::chrono::milliseconds(500));
  EXPECT_EQ(ParseTimeout("6u"), std::chrono::microseconds(6));
  EXPECT_EQ(ParseTimeout("99999999n"), std::chrono::nanoseconds(99'999'999));
  EXPECT_EQ(ParseTimeout("0n"), Duration::zero());
}

TEST(TimeoutTest, MoreThanAClockCanHoldIsAHundredYears) {
  const Duration century = std::chrono::hours(100 * 365 * 24);
  EXPECT_EQ(ParseTimeout("99999999H"), century);
  EXPECT_EQ(ParseTimeout("99999999M"), century);
  EXPECT_EQ(ParseTimeout("99999999S"), std::chrono::seconds(99'999'999));
}

TEST(TimeoutTest, OtherTextsAreNone) {
  for (const char* text : {"", "S", "1", "1s", "-1S", "+1S", "1.5S", " 1S", "1S ", "1 S", "soon",
                           "123456789n", "1SS"}) {
    EXPECT_EQ(ParseTimeout(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace conclave::wire
