// What the checker of locks must reject, and what it must not.
#include "conclave/tests/nemesis/holdings.h"

#include <gtest/gtest.h>

#include <chrono>

namespace conclave::nemesis {
namespace {

Holding Held(int client, int64_t token, int from, int until) {
  return {.token = token,
          .client = client,
          .from = Instant(std::chrono::milliseconds(from)),
          .until = Instant(std::chrono::milliseconds(until))};
}

TEST(HoldingsTest, WhoFollowsWithAGreaterTokenIsRight) {
  EXPECT_TRUE(CheckHoldings({}).empty());
  EXPECT_TRUE(CheckHoldings({Held(1, 5, 10, 20)}).empty());
  EXPECT_TRUE(CheckHoldings({Held(2, 9, 21, 30), Held(1, 5, 10, 20), Held(1, 11, 31, 31)}).empty());
}

TEST(HoldingsTest, EveryBadHistoryIsRejected) {
  const std::vector<std::vector<Holding>> bad = {
      {Held(1, 5, 10, 20), Held(2, 6, 15, 30)},                      // overlap
      {Held(1, 5, 10, 20), Held(2, 6, 20, 30)},                      // meet in one moment
      {Held(1, 5, 10, 30), Held(2, 6, 15, 20)},                      // one within the other
      {Held(1, 5, 10, 20), Held(2, 6, 10, 20)},                      // the same time
      {Held(1, 5, 10, 20), Held(1, 6, 15, 30)},                      // one client twice at once
      {Held(2, 6, 15, 30), Held(1, 5, 10, 20)},                      // overlap, told out of order
      {Held(1, 5, 10, 20), Held(2, 5, 21, 30)},                      // the same token
      {Held(1, 5, 10, 20), Held(2, 4, 21, 30)},                      // a smaller one
      {Held(1, 5, 10, 20), Held(2, 8, 21, 30), Held(1, 7, 31, 40)},  // smaller than the one before
      {Held(1, 5, 10, 20), Held(1, 5, 21, 30)},                      // one client, a token twice
      {Held(1, 0, 10, 20), Held(2, 0, 21, 30)},                      // no tokens at all
  };
  for (size_t i = 0; i < bad.size(); ++i) EXPECT_FALSE(CheckHoldings(bad[i]).empty()) << i;
}

}  // namespace
}  // namespace conclave::nemesis
