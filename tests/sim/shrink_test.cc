// A run that fails becomes a smaller one that fails for the same reason.
#include "conclave/tests/sim/shrink.h"

#include <gtest/gtest.h>

#include <chrono>

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

// Fails when members lose power while clients put keys, after 7 s of chaos.
bool FailsByPower(const Plan& plan) {
  return plan.Has(Fault::kPowerLoss) && plan.Has(Part::kKeys) &&
         plan.chaos_max >= milliseconds(7000);
}

TEST(Shrink, LeavesWhatTheFailureNeeds) {
  int runs = 0;
  const Plan small = Shrink({}, 1000, [&runs](const Plan& plan) {
    ++runs;
    return FailsByPower(plan);
  });
  EXPECT_TRUE(FailsByPower(small));
  EXPECT_EQ(small.without_faults.count(), kFaults - 1);
  EXPECT_EQ(small.without_parts.count(), kParts - 1);
  EXPECT_LT(small.chaos_max, milliseconds(7500));
  EXPECT_LT(runs, 150);
}

TEST(Shrink, EndsWhenItHasRunOftenEnough) {
  int runs = 0;
  const Plan small = Shrink({}, 5, [&runs](const Plan&) {
    ++runs;
    return true;
  });
  EXPECT_EQ(runs, 5);
  EXPECT_TRUE(small.chaos_max < Plan().chaos_max);
}

TEST(Shrink, APlanIsItsFlags) {
  Plan plan{.guests = Guests::kStorm};
  EXPECT_EQ(plan.Flags(), " --storm");
  EXPECT_TRUE(plan.LeaveOut("power-loss"));
  EXPECT_TRUE(plan.LeaveOut("watches"));
  EXPECT_FALSE(plan.LeaveOut("nothing"));
  plan.chaos_max = milliseconds(1500);
  EXPECT_EQ(plan.Flags(), " --storm --without power-loss --without watches --chaos-ms 1500");
}

}  // namespace
}  // namespace conclave::sim
