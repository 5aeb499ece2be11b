#include "conclave/discovery/picking/weighted_sequence.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace conclave::picking {
namespace {

// Slots for each member: exact if the weights are whole and small, else by the largest remainder,
// with at least one for whoever has a weight.
std::vector<uint32_t> Apportion(const std::vector<double>& weights) {
  std::vector<uint32_t> slots(weights.size());
  const bool whole =
      std::all_of(weights.begin(), weights.end(), [](double w) { return w == std::floor(w); });
  if (whole) {
    uint64_t divisor = 0;
    uint64_t sum = 0;
    for (const double w : weights) {
      divisor = std::gcd(divisor, static_cast<uint64_t>(w));
      sum += static_cast<uint64_t>(w);
    }
    if (sum / divisor <= WeightedSequence::kExactSlotsMax) {
      for (size_t i = 0; i < weights.size(); ++i) {
        slots[i] = static_cast<uint32_t>(static_cast<uint64_t>(weights[i]) / divisor);
      }
      return slots;
    }
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const size_t total =
      std::clamp<size_t>(8 * weights.size(), 1'024, WeightedSequence::kRoundedSlotsMax);
  std::vector<std::pair<double, size_t>> remainders;
  size_t given = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const double share = weights[i] / sum * static_cast<double>(total);
    slots[i] = std::max<uint32_t>(1, static_cast<uint32_t>(share));
    given += slots[i];
    remainders.emplace_back(slots[i] - share, i);  // most wanting first
  }
  std::sort(remainders.begin(), remainders.end());
  for (size_t k = 0; k < remainders.size() && given < total; ++k, ++given) {
    if (remainders[k].first >= 0) break;
    ++slots[remainders[k].second];
  }
  return slots;
}

}  // namespace

WeightedSequence::WeightedSequence(std::span<const double> weights) : members_(weights.size()) {
  std::vector<double> clamped(weights.size());
  std::transform(weights.begin(), weights.end(), clamped.begin(),
                 [](double w) { return w > 0 ? std::min(w, kWeightMax) : 0.0; });
  if (std::adjacent_find(clamped.begin(), clamped.end(), std::not_equal_to<>()) == clamped.end()) {
    return;  // all are equal
  }
  constexpr double kGoldenRatio = 0.6180339887498949;
  const std::vector<uint32_t> slots = Apportion(clamped);
  const double total = std::accumulate(slots.begin(), slots.end(), 0.0);
  std::vector<std::pair<double, uint32_t>> wishes;
  wishes.reserve(static_cast<size_t>(total));
  for (uint32_t i = 0; i < slots.size(); ++i) {
    const double phase = std::fmod(i * kGoldenRatio, 1.0);
    for (uint32_t k = 0; k < slots[i]; ++k) wishes.emplace_back((k + phase) * total / slots[i], i);
  }
  std::sort(wishes.begin(), wishes.end());
  table_.reserve(wishes.size());
  for (const auto& [position, member] : wishes) table_.push_back(member);
}

}  // namespace conclave::picking
