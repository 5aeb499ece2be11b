#include "conclave/server/lease/deadline_heap.h"

#include <algorithm>

#include "conclave/base/check.h"

namespace conclave::lease {

void DeadlineHeap::Place(size_t position, const Entry& entry) {
  entries_[position] = entry;
  positions_[entry.slot] = static_cast<uint32_t>(position);
}

void DeadlineHeap::SiftUp(size_t position, const Entry& entry) {
  while (position > 0) {
    const size_t parent = (position - 1) / kArity;
    if (!(entry < entries_[parent])) break;
    Place(position, entries_[parent]);
    position = parent;
  }
  Place(position, entry);
}

void DeadlineHeap::SiftDown(size_t position, const Entry& entry) {
  while (true) {
    const size_t first = position * kArity + 1;
    if (first >= entries_.size()) break;
    const size_t end = std::min(first + kArity, entries_.size());
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child) {
      if (entries_[child] < entries_[least]) least = child;
    }
    if (!(entries_[least] < entry)) break;
    Place(position, entries_[least]);
    position = least;
  }
  Place(position, entry);
}

void DeadlineHeap::Reposition(size_t position, const Entry& entry) {
  if (position > 0 && entry < entries_[(position - 1) / kArity]) {
    SiftUp(position, entry);
  } else {
    SiftDown(position, entry);
  }
}

void DeadlineHeap::Set(uint32_t slot, Instant deadline) {
  const Entry entry{.deadline = deadline, .slot = slot};
  if (Contains(slot)) {
    Reposition(positions_[slot], entry);
    return;
  }
  if (slot >= positions_.size()) positions_.resize(slot + 1, kAbsent);
  entries_.push_back(entry);
  SiftUp(entries_.size() - 1, entry);
}

void DeadlineHeap::Remove(uint32_t slot) {
  if (!Contains(slot)) return;
  const size_t position = positions_[slot];
  positions_[slot] = kAbsent;
  const Entry last = entries_.back();
  entries_.pop_back();
  if (position < entries_.size()) Reposition(position, last);
}

void DeadlineHeap::Clear() {
  entries_ = {};
  positions_ = {};
}

void DeadlineHeap::Append(uint32_t slot, Instant deadline) {
  if (slot >= positions_.size()) positions_.resize(slot + 1, kAbsent);
  CONCLAVE_CHECK(positions_[slot] == kAbsent);
  positions_[slot] = static_cast<uint32_t>(entries_.size());
  entries_.push_back({.deadline = deadline, .slot = slot});
}

void DeadlineHeap::Build() {
  if (entries_.size() < 2) return;
  for (size_t position = (entries_.size() - 2) / kArity + 1; position-- > 0;) {
    const Entry entry = entries_[position];
    SiftDown(position, entry);
  }
}

void DeadlineHeap::CheckInvariants() const {
  size_t contained = 0;
  for (size_t slot = 0; slot < positions_.size(); ++slot) {
    if (positions_[slot] == kAbsent) continue;
    ++contained;
    CONCLAVE_CHECK(entries_[positions_[slot]].slot == slot);
  }
  CONCLAVE_CHECK(contained == entries_.size());
  for (size_t i = 1; i < entries_.size(); ++i) {
    CONCLAVE_CHECK(entries_[(i - 1) / kArity] < entries_[i]);
  }
}

}  // namespace conclave::lease
