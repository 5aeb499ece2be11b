#include "conclave/discovery/picking/hash_ring.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "conclave/discovery/picking/stable_hash.h"

namespace conclave::picking {
namespace {

// Points per unit of weight.
double Scale(std::span<const HashRing::Member> members) {
  double largest = 0;
  double sum = 0;
  for (const HashRing::Member& member : members) {
    largest = std::max(largest, member.weight);
    sum += std::max(0.0, member.weight);
  }
  if (largest <= 0) return 0;
  double scale = HashRing::kPointsPerMember;  // of the weight 1; by steps of 2 from here
  while (scale * largest < HashRing::kPointsPerMember) scale *= 2;
  while (scale * largest >= 2 * HashRing::kPointsPerMember) scale /= 2;
  while (scale * sum > HashRing::kPointsMax) scale /= 2;
  return scale;
}

}  // namespace

HashRing::HashRing(std::span<const Member> members) {
  const double scale = Scale(members);
  std::vector<std::pair<uint64_t, uint32_t>> points;
  for (uint32_t i = 0; i < members.size(); ++i) {
    if (!(members[i].weight > 0)) continue;
    const auto count = std::max<uint64_t>(1, std::llround(members[i].weight * scale));
    const uint64_t base = StableHash(members[i].name);
    for (uint64_t k = 0; k < count; ++k) {
      points.emplace_back(MixBits(base + 0x9e3779b97f4a7c15u * (k + 1)), i);
    }
  }
  std::sort(points.begin(), points.end());
  hashes_.reserve(points.size());
  owners_.reserve(points.size());
  for (const auto& [hash, owner] : points) {
    hashes_.push_back(hash);
    owners_.push_back(owner);
  }
}

// Hashes are uniform, so a guess by proportion lands within a few points of the place: fewer cache
// misses than halving from the middle.
size_t HashRing::LowerBound(uint64_t hash) const {
  const size_t size = hashes_.size();
  if (size == 0) return 0;
  const auto guess = static_cast<size_t>((static_cast<unsigned __int128>(hash) * size) >> 64);
  size_t step = 8;
  size_t low = guess;
  while (low > 0 && hashes_[low] >= hash) {
    low = low > step ? low - step : 0;
    step *= 2;
  }
  size_t high = guess;
  step = 8;
  while (high < size && hashes_[high] < hash) {
    high = std::min(size, high + step);
    step *= 2;
  }
  const auto found = std::lower_bound(hashes_.begin() + static_cast<ptrdiff_t>(low),
                                      hashes_.begin() + static_cast<ptrdiff_t>(high), hash);
  return static_cast<size_t>(found - hashes_.begin());
}

}  // namespace conclave::picking
