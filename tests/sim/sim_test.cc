// Three hundred worlds, and every one of them twice the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "conclave/tests/marks/marks.h"
#include "conclave/tests/sim/faults.h"
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

template <typename Value>
Value Median(std::vector<Value> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

TEST(Simulation, ThreeHundredSeedsHoldWhatIsPromised) {
  uint64_t acknowledged = 0;
  uint64_t elections = 0;
  uint64_t installed = 0;
  std::vector<uint64_t> faults;
  std::vector<size_t> classes;
  FaultCounts all;
  for (uint64_t seed = 1000; seed < 1300; ++seed) {
    const Verdict verdict = Simulation(seed).Run();
    EXPECT_TRUE(verdict.ok()) << Report(verdict);
    acknowledged += verdict.acknowledged;
    all += verdict.faults;
    faults.push_back(verdict.faults.all());
    classes.push_back(verdict.faults.classes());
    elections += verdict.elections;
    installed += verdict.snapshots_installed;
  }
  // The worlds are neither empty nor hopeless.
  EXPECT_GT(acknowledged, 100'000u);
  EXPECT_GE(Median(faults), 50u);
  EXPECT_GE(Median(classes), 20u);
  for (size_t i = 0; i < kFaults; ++i) {
    const auto fault = static_cast<Fault>(i);
    if (fault != Fault::kGuest) EXPECT_GT(all.of(fault), 0u) << kFaultNames[i];
  }
  EXPECT_GT(elections, 1'000u);
  EXPECT_GT(installed, 20u);
  // Three hundred runs come by most of the rare paths that such clients can reach.
  const std::vector<Mark> marks = Marks();
  EXPECT_GE(marks.size(), 100u);
  EXPECT_GT(std::count_if(marks.begin(), marks.end(), [](const Mark& m) { return m.reached; }), 70);
}

}  // namespace
}  // namespace conclave::sim
