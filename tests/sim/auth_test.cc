// Users whose permissions change all the time, in worlds where everything else goes wrong too.
#include <gtest/gtest.h>

#include <string>

#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

TEST(Auth, OneHundredSeedsHoldWhatIsPromised) {
  AuthCounts all;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const Verdict verdict = Simulation(seed, {.guests = Guests::kAuth}).Run();
    std::string report = "replay: scripts/sim --auth --verbose --seed " + std::to_string(seed);
    for (const std::string& complaint : verdict.complaints) report += "\n  " + complaint;
    EXPECT_TRUE(verdict.ok()) << report;
    all.changes += verdict.auth.changes;
    all.deeds += verdict.auth.deeds;
  }
  // The worlds are neither empty nor hopeless.
  EXPECT_GT(all.changes, 500u);
  EXPECT_GT(all.deeds, 2'500u);
}

TEST(Auth, TheSameSeedIsTheSameRun) {
  const Plan plan{.guests = Guests::kAuth};
  EXPECT_EQ(Simulation(7, plan).Run().trace_hash, Simulation(7, plan).Run().trace_hash);
}

}  // namespace
}  // namespace conclave::sim
