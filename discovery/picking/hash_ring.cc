#include "conclave/discovery/picking/hash_ring.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "conclave/base/check.h"
#include "conclave/discovery/stable_hash.h"

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
  CONCLAVE_CHECK(members.size() <= kMembersMax, "members of a ring");
  const double scale = Scale(members);
  for (uint32_t i = 0; i < members.size(); ++i) {
    if (!(members[i].weight > 0)) continue;
    const auto count = std::max<uint64_t>(1, std::llround(members[i].weight * scale));
    const uint64_t base = StableHash(members[i].name);
    for (uint64_t k = 0; k < count; ++k) {
      points_.push_back((MixBits(base + 0x9e3779b97f4a7c15u * (k + 1)) & ~kOwnerMask) | i);
    }
  }
  if (points_.empty()) return;
  std::sort(points_.begin(), points_.end());

  // Two to four points for each entry of the index: it stays small, and the walk short.
  const int bits = std::max(1, static_cast<int>(std::bit_width(points_.size())) - 2);
  shift_ = 64 - bits;
  starts_.reserve(size_t{1} << bits);
  uint32_t at = 0;
  for (uint64_t first = 0; first < uint64_t{1} << bits; ++first) {
    while (at < points_.size() && points_[at] >> shift_ < first) ++at;
    starts_.push_back(at);
  }
  points_.push_back(UINT64_MAX);
}

}  // namespace conclave::picking
