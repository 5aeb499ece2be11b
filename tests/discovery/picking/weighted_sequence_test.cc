// Shares and smoothness of weighted turns.
#include "conclave/discovery/picking/weighted_sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "conclave/base/prng.h"

namespace conclave::picking {
namespace {

std::vector<int> Turns(const WeightedSequence& sequence, size_t members) {
  std::vector<int> turns(members);
  for (size_t i = 0; i < sequence.slots(); ++i) ++turns[sequence.At(i)];
  return turns;
}

TEST(WeightedSequenceTest, OneRoundHasTheExactSharesOfWholeWeights) {
  const std::vector<double> weights = {500, 100, 100, 300};
  const WeightedSequence sequence(weights);
  EXPECT_EQ(sequence.slots(), 10u) << "the greatest common divisor is taken out";
  EXPECT_EQ(Turns(sequence, 4), (std::vector<int>{5, 1, 1, 3}));
}

TEST(WeightedSequenceTest, EqualWeightsNeedNoTable) {
  const std::vector<double> weights(7, 100);
  const WeightedSequence sequence(weights);
  for (uint64_t turn = 0; turn < 21; ++turn) EXPECT_EQ(sequence.At(turn), turn % 7);
}

TEST(WeightedSequenceTest, WeightZeroIsNoTurnsUnlessAllAreZero) {
  const std::vector<double> weights = {0, 3, 1, -5};
  EXPECT_EQ(Turns(WeightedSequence(weights), 4), (std::vector<int>{0, 3, 1, 0}));
  const std::vector<double> none = {0, 0, -1};
  EXPECT_EQ(Turns(WeightedSequence(none), 3), (std::vector<int>{1, 1, 1}));
}

TEST(WeightedSequenceTest, TheHeavyOneDoesNotGetItsTurnsInARow) {
  const std::vector<double> weights = {5, 1, 1};
  const WeightedSequence sequence(weights);
  int row = 0;
  int longest = 0;
  for (uint64_t turn = 0; turn < 70; ++turn) {
    row = sequence.At(turn) == 0 ? row + 1 : 0;
    longest = std::max(longest, row);
  }
  EXPECT_LE(longest, 3) << "nginx's smooth weighted round robin needs 4";
}

TEST(WeightedSequenceTest, TurnsAreSpreadOverTheRoundForAnyWeights) {
  Prng prng(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> weights(1 + prng.Below(50));
    for (double& weight : weights) weight = static_cast<double>(1 + prng.Below(100));
    const WeightedSequence sequence(weights);
    const double slots = static_cast<double>(sequence.slots());
    const std::vector<int> turns = Turns(sequence, weights.size());
    std::vector<double> last(weights.size(), -1);
    for (uint64_t turn = 0; turn < 2 * sequence.slots(); ++turn) {
      const uint32_t member = sequence.At(turn);
      if (last[member] >= 0) {
        const double gap = static_cast<double>(turn) - last[member];
        const double mean = slots / turns[member];
        // A slot may be taken by each of the others first.
        EXPECT_LE(gap, 2 * mean + static_cast<double>(weights.size()));
      }
      last[member] = static_cast<double>(turn);
    }
  }
}

TEST(WeightedSequenceTest, AwkwardWeightsAreRoundedWithinABound) {
  Prng prng(11);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> weights(2 + prng.Below(300));
    for (double& weight : weights) weight = prng.Unit() * 1'000 + 0.5;
    const WeightedSequence sequence(weights);
    EXPECT_LE(sequence.slots(), 2 * WeightedSequence::kRoundedSlotsMax);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    const std::vector<int> turns = Turns(sequence, weights.size());
    for (size_t i = 0; i < weights.size(); ++i) {
      const double wanted = weights[i] / sum;
      const double got = turns[i] / static_cast<double>(sequence.slots());
      EXPECT_GE(turns[i], 1);
      EXPECT_NEAR(got, wanted, 1.0 / (8.0 * static_cast<double>(weights.size())) + 0.1 * wanted);
    }
  }
}

TEST(WeightedSequenceTest, HugeWeightsAndSetsStayBounded) {
  std::vector<double> weights(10'000, 1);
  weights[17] = 1e300;
  const WeightedSequence sequence(weights);
  EXPECT_LE(sequence.slots(), 3 * WeightedSequence::kRoundedSlotsMax);
  const std::vector<int> turns = Turns(sequence, weights.size());
  EXPECT_EQ(*std::min_element(turns.begin(), turns.end()), 1);
  EXPECT_GT(turns[17], 10'000);
}

}  // namespace
}  // namespace conclave::picking
