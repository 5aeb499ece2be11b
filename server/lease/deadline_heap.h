// DeadlineHeap: a 4-ary min-heap of (instant, slot) in which a slot can be moved and removed: it
// keeps the position of each slot. Ties go to the lower slot, so the order is the same in every
// run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "conclave/base/time.h"

namespace conclave::lease {

class DeadlineHeap {
 public:
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  // Requires !empty().
  Instant first_deadline() const { return entries_.front().deadline; }
  uint32_t first_slot() const { return entries_.front().slot; }

  bool Contains(uint32_t slot) const {
    return slot < positions_.size() && positions_[slot] != kAbsent;
  }
  // The instant of a slot that is contained.
  Instant DeadlineOf(uint32_t slot) const { return entries_[positions_[slot]].deadline; }

  // Puts the slot in, or moves it.
  void Set(uint32_t slot, Instant deadline);
  // Does nothing if it is not contained.
  void Remove(uint32_t slot);
  void Clear();

  // Many at once, at O(n): Clear, Append each slot once, then Build.
  void Append(uint32_t slot, Instant deadline);
  void Build();

  void CheckInvariants() const;

 private:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  static constexpr size_t kArity = 4;
  struct Entry {
    Instant deadline;
    uint32_t slot;
    friend bool operator<(const Entry& a, const Entry& b) {
      return a.deadline != b.deadline ? a.deadline < b.deadline : a.slot < b.slot;
    }
  };
  void Place(size_t position, const Entry& entry);
  void SiftUp(size_t position, const Entry& entry);
  void SiftDown(size_t position, const Entry& entry);
  void Reposition(size_t position, const Entry& entry);

  std::vector<Entry> entries_;
  std::vector<uint32_t> positions_;  // by slot
};

}  // namespace conclave::lease
