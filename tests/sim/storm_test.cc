// Members come and go in worlds where everything else goes wrong too.
#include <gtest/gtest.h>

#include <string>

#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

TEST(Storm, TheSameSeedIsTheSameRun) {
  const Plan plan{.guests = Guests::kStorm};
  const Verdict once = Simulation(3, plan).Run();
  const Verdict twice = Simulation(3, plan).Run();
  EXPECT_EQ(once.trace_hash, twice.trace_hash);
  EXPECT_EQ(once.events, twice.events);
}

TEST(Storm, OneHundredSeedsHoldWhatIsPromised) {
  StormCounts all;
  uint64_t acknowledged = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const Verdict verdict = Simulation(seed, {.guests = Guests::kStorm}).Run();
    std::string report = "replay: scripts/sim --storm --verbose --seed " + std::to_string(seed);
    for (const std::string& complaint : verdict.complaints) report += "\n  " + complaint;
    EXPECT_TRUE(verdict.ok()) << report;
    all.changes += verdict.storm.changes;
    all.joined += verdict.storm.joined;
    all.left += verdict.storm.left;
    acknowledged += verdict.acknowledged;
  }
  // The worlds are neither empty nor hopeless.
  EXPECT_GT(all.changes, 200u);
  EXPECT_GT(all.joined, 50u);
  EXPECT_GT(all.left, 30u);
  EXPECT_GT(acknowledged, 20'000u);
}

}  // namespace
}  // namespace conclave::sim
