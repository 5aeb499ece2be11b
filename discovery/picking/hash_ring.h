// HashRing: consistent hashing. Pure.
//
// Each member has points on a ring of hashes, in proportion to its weight; a key belongs to the
// member of the first point at or after its hash. A point depends on nothing but the member's name
// and the point's number. So when a member joins or leaves, only keys that come to it or were its
// own move: 1 of n on average.
//
// The number of points per unit of weight is a power of two's multiple, chosen by the largest
// weight and the sum of all. It stays the same over small changes of the set; when it does change,
// half of everybody's points come or go, which moves up to half of the keys once.
//
// A look-up takes two cache misses: hashes are uniform, so an index by their first bits leads to
// within a few points of the place, and a point is one word, hash and member together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace conclave::picking {

class HashRing {
 public:
  // What a member of the largest weight has at least, unless there are so many members that the
  // ring would outgrow its limit.
  static constexpr double kPointsPerMember = 256;
  static constexpr size_t kPointsMax = 131'072;
  static constexpr size_t kMembersMax = size_t{1} << 24;

  struct Member {
    std::string name{};
    double weight = 1;  // 0: not on the ring
  };

  HashRing() = default;
  // At most kMembersMax.
  explicit HashRing(std::span<const Member> members);

  static constexpr uint32_t kNone = UINT32_MAX;
  bool empty() const { return points_.empty(); }
  size_t points() const { return points_.empty() ? 0 : points_.size() - 1; }
  // The index of the member that has `hash`, and if usable[member] is false, of the next on the
  // ring for whom it is not. kNone if there is none.
  template <typename Usable>
  uint32_t Find(uint64_t hash, const Usable& usable) const {
    if (empty()) return kNone;
    const size_t begin = LowerBound(hash);
    for (size_t i = 0; i < points(); ++i) {
      const size_t at = begin + i;
      const uint32_t owner = OwnerOf(points_[at < points() ? at : at - points()]);
      if (usable(owner)) return owner;
    }
    return kNone;
  }

 private:
  // A point: the first 40 bits of its hash, then the member, by which points of one hash go.
  static constexpr uint64_t kOwnerMask = kMembersMax - 1;
  static uint32_t OwnerOf(uint64_t point) { return static_cast<uint32_t>(point & kOwnerMask); }

  size_t LowerBound(uint64_t hash) const {
    const uint64_t least = hash & ~kOwnerMask;
    size_t at = starts_[hash >> shift_];
    while (points_[at] < least) ++at;
    return at;
  }

  std::vector<uint64_t> points_;  // sorted; after them one that no hash is beyond
  // By the first bits of a hash: where the points begin that have these or larger ones.
  std::vector<uint32_t> starts_;
  int shift_ = 0;  // what leaves those bits of a hash
};

}  // namespace conclave::picking
