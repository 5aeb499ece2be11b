// Two hundred worlds, and every one of them twice the same.
#include <gtest/gtest.h>

#include <string>

#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

std::string Report(const Verdict& verdict) {
  std::string text = "seed " + std::to_string(verdict.seed) +
                     " fails; replay: scripts/sim --seed " + std::to_string(verdict.seed) +
                     " --verbose\n";
  for (const std::string& complaint : verdict.complaints) text += "  " + complaint + "\n";
  return text;
}

TEST(Simulation, TheSameSeedIsTheSameRun) {
  for (const uint64_t seed : {1, 17, 42}) {
    const Verdict once = Simulation(seed).Run();
    const Verdict twice = Simulation(seed).Run();
    EXPECT_EQ(once.trace_hash, twice.trace_hash) << "seed " << seed;
    EXPECT_EQ(once.revisions, twice.revisions);
    EXPECT_EQ(once.events, twice.events);
  }
  EXPECT_NE(Simulation(1).Run().trace_hash, Simulation(2).Run().trace_hash);
}

TEST(Simulation, TwoHundredSeedsHoldWhatIsPromised) {
  uint64_t acknowledged = 0;
  uint64_t faults = 0;
  uint64_t elections = 0;
  uint64_t installed = 0;
  for (uint64_t seed = 1000; seed < 1200; ++seed) {
    const Verdict verdict = Simulation(seed).Run();
    EXPECT_TRUE(verdict.ok()) << Report(verdict);
    acknowledged += verdict.acknowledged;
    faults += verdict.faults;
    elections += verdict.elections;
    installed += verdict.snapshots_installed;
  }
  // The worlds are neither empty nor hopeless.
  EXPECT_GT(acknowledged, 100'000u);
  EXPECT_GT(faults, 2'000u);
  EXPECT_GT(elections, 1'000u);
  EXPECT_GT(installed, 20u);
}

}  // namespace
}  // namespace conclave::sim
