// HashRing: consistent hashing. Pure.
//
// Each member has points on a ring of 64-bit hashes, in proportion to its weight; a key belongs to
// the member of the first point at or after its hash. A point depends on nothing but the member's
// name and the point's number. So when a member joins or leaves, only keys that come to it or were
// its own move: 1 of n on average.
//
// The number of points per unit of weight is a power of two's multiple, chosen by the largest
// weight and the sum of all. It stays the same over small changes of the set; when it does change,
// half of everybody's points come or go, which moves up to half of the keys once.
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

  struct Member {
    std::string name{};
    double weight = 1;  // 0: not on the ring
  };

  HashRing() = default;
  explicit HashRing(std::span<const Member> members);

  static constexpr uint32_t kNone = UINT32_MAX;
  bool empty() const { return hashes_.empty(); }
  size_t points() const { return hashes_.size(); }
  // The index of the member that has `hash`, and if usable[member] is false, of the next on the
  // ring for whom it is not. kNone if there is none.
  template <typename Usable>
  uint32_t Find(uint64_t hash, const Usable& usable) const {
    const size_t begin = LowerBound(hash);
    for (size_t i = 0; i < owners_.size(); ++i) {
      const size_t at = begin + i;
      const uint32_t owner = owners_[at < owners_.size() ? at : at - owners_.size()];
      if (usable(owner)) return owner;
    }
    return kNone;
  }

 private:
  size_t LowerBound(uint64_t hash) const;

  std::vector<uint64_t> hashes_;  // sorted
  std::vector<uint32_t> owners_;  // of the point at the same place
};

}  // namespace conclave::picking
