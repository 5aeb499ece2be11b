// Worlds whose guests use the production client and the recipes on it.
#include <gtest/gtest.h>

#include <string>

#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

std::string Report(const Verdict& verdict) {
  std::string text = "seed " + std::to_string(verdict.seed) +
                     " fails; replay: scripts/sim --recipes --seed " +
                     std::to_string(verdict.seed) + " --verbose\n";
  for (const std::string& complaint : verdict.complaints) text += "  " + complaint + "\n";
  return text;
}

void Add(const RecipeCounts& more, RecipeCounts* all) {
  static constexpr uint64_t RecipeCounts::*kCounts[] = {
      &RecipeCounts::grants,     &RecipeCounts::reads,   &RecipeCounts::writes,
      &RecipeCounts::downgrades, &RecipeCounts::permits, &RecipeCounts::several,
      &RecipeCounts::numbers,    &RecipeCounts::items,   &RecipeCounts::barriers,
      &RecipeCounts::rounds,     &RecipeCounts::members, &RecipeCounts::jobs,
      &RecipeCounts::leases,     &RecipeCounts::leaders, &RecipeCounts::views,
      &RecipeCounts::faults};
  for (uint64_t RecipeCounts::*count : kCounts) all->*count += more.*count;
}

TEST(RecipeSimulation, TheSameSeedIsTheSameRun) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 8, 17}) {
    const Verdict once = Simulation(seed, {.guests = Guests::kRecipes}).Run();
    const Verdict twice = Simulation(seed, {.guests = Guests::kRecipes}).Run();
    EXPECT_EQ(once.trace_hash, twice.trace_hash) << "seed " << seed;
    EXPECT_EQ(once.events, twice.events);
    EXPECT_EQ(once.recipes.grants, twice.recipes.grants);
  }
}

TEST(RecipeSimulation, AHundredSeedsHoldWhatIsPromised) {
  RecipeCounts all;
  for (uint64_t seed = 2000; seed < 2100; ++seed) {
    const Verdict verdict = Simulation(seed, {.guests = Guests::kRecipes}).Run();
    EXPECT_TRUE(verdict.ok()) << Report(verdict);
    Add(verdict.recipes, &all);
  }
  // The worlds are neither empty nor hopeless.
  EXPECT_GT(all.grants, 2'000u);
  EXPECT_GT(all.reads, 100u);
  EXPECT_GT(all.writes, 30u);
  EXPECT_GT(all.downgrades, 10u);
  EXPECT_GT(all.permits, 100u);
  EXPECT_GT(all.several, 100u);
  EXPECT_GT(all.numbers, 100u);
  EXPECT_GT(all.items, 100u);
  EXPECT_GT(all.barriers, 50u);
  EXPECT_GT(all.rounds, 50u);
  EXPECT_GT(all.members, 100u);
  EXPECT_GT(all.jobs, 100u);
  EXPECT_GT(all.leases, 2'000u);
  EXPECT_GT(all.leaders, 2'000u);
  EXPECT_GT(all.views, 1'000u);
  EXPECT_GT(all.faults, 1'000u);
}

}  // namespace
}  // namespace conclave::sim
