// Inflights: the appends that a leader has sent to one follower and that are not acknowledged yet,
// bounded by count and by bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "conclave/server/raft/types.h"

namespace conclave::raft {

// A ring that grows to its limit as it is needed. Invariants: last indices grow; bytes() is the sum
// over what is in the ring. Full means that nothing more may be added; the last append may overrun
// the limit of bytes, so that an entry larger than the limit can be sent at all.
class Inflights {
 public:
  Inflights(uint32_t max_messages, uint64_t max_bytes)
      : max_messages_(max_messages), max_bytes_(max_bytes) {}

  bool Full() const { return count_ >= max_messages_ || bytes_ >= max_bytes_; }
  uint32_t count() const { return count_; }
  uint64_t bytes() const { return bytes_; }

  // One append whose last entry is `last`; not Full.
  void Add(Index last, uint64_t bytes);
  // Frees all appends whose last entry is at or below `index`.
  void FreeTo(Index index);
  void Reset();

 private:
  struct Append {
    Index last;
    uint64_t bytes = 0;
  };

  void Grow();

  uint32_t max_messages_;
  uint64_t max_bytes_;
  std::vector<Append> ring_;
  uint32_t start_ = 0;
  uint32_t count_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace conclave::raft
