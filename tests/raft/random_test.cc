// Many seeds of a world with every fault. CONCLAVE_RAFT_SEEDS and CONCLAVE_RAFT_FIRST_SEED choose
// how many and which; a failing seed is the last one printed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "conclave/tests/raft/random_world.h"

namespace conclave::raft::test {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

TEST(Random, StaysSafeUnderFaultsAndAgreesAfterThem) {
  constexpr int kSteps = 10000;
  const uint64_t first = FromEnvironment("CONCLAVE_RAFT_FIRST_SEED", 1);
  const uint64_t seeds = FromEnvironment("CONCLAVE_RAFT_SEEDS", 600);
  const bool verbose = seeds < 10;
  std::map<std::string, uint64_t> events;
  uint64_t committed = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE(seed);
    // A failed check ends the process, so the seed must be known before.
    if (verbose || std::getenv("CONCLAVE_RAFT_TRACE") != nullptr) {
      std::cerr << "seed " << seed << std::endl;
    }
    RandomWorld world(seed);
    world.RunFaults(kSteps);
    world.HealAndConverge();
    for (const auto& [event, count] : world.events()) events[event] += count;
    committed += world.committed();
  }
  std::cout << "committed: " << committed << "\n";
  for (const auto& [event, count] : events) std::cout << event << ": " << count << "\n";
  if (seeds < 500) return;
  // A world in which nothing happens proves nothing.
  for (const char* event :
       {"leader", "crash", "partition", "snapshot", "snapshot installed", "forwarded",
        "forwarded refused", "read at leader", "read at follower", "read failed", "simple change",
        "joint change", "transfer", "too many uncommitted"}) {
    EXPECT_GT(events[event], 50u) << event;
  }
}

// Everything comes from the seed, so a failing one fails again.
TEST(Random, TheSameSeedGivesTheSameWorld) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    RandomWorld first(seed);
    RandomWorld second(seed);
    first.RunFaults(3000);
    second.RunFaults(3000);
    EXPECT_EQ(first.events(), second.events()) << seed;
    EXPECT_EQ(first.Describe(), second.Describe()) << seed;
  }
}

}  // namespace
}  // namespace conclave::raft::test
