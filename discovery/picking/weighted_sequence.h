// WeightedSequence: in which order the members of a weighted set get their turns. Pure.
//
// An endless sequence of indexes, given by a table that is gone through again and again: over one
// round of it each member has its share of the turns, and they are spread over the round. So a turn
// is one look into an array, wherever it begins, and threads need nothing in common but a counter.
//
// Member i with s of the L slots wants them at (k + phase(i)) * L / s for k = 0..s-1; the phases
// (multiples of the golden ratio) keep members of equal weight from wanting the same slot. So two
// of its turns are never further apart than twice their mean distance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace conclave::picking {

class WeightedSequence {
 public:
  // Up to so many slots the shares are exact (for whole weights, over one round); beyond that they
  // are rounded, to one part in at least 8 times the number of members.
  static constexpr size_t kExactSlotsMax = 16'384;
  static constexpr size_t kRoundedSlotsMax = 65'536;
  static constexpr double kWeightMax = 1e6;  // larger ones count as that

  WeightedSequence() = default;
  // Negative weights count as 0. Members of weight 0 have no turns, unless all are 0: then all are
  // equal.
  explicit WeightedSequence(std::span<const double> weights);

  bool empty() const { return members_ == 0; }
  size_t slots() const { return table_.empty() ? members_ : table_.size(); }
  uint32_t At(uint64_t turn) const {
    return table_.empty() ? static_cast<uint32_t>(turn % members_) : table_[turn % table_.size()];
  }

 private:
  size_t members_ = 0;
  std::vector<uint32_t> table_;  // empty: all are equal
};

}  // namespace conclave::picking
