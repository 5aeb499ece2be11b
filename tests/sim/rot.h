// Rot: what a disk does to data at rest, where its server promises to notice and to have it
// repaired by others (docs/reliability.md).
//
// Only what is proven is touched: what stands in the log behind the last sync batch but one looks
// like a torn write when it is bad, and is treated as one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"

namespace conclave::sim {

enum class RotKind : uint8_t {
  kLog,        // bits, bytes or a sector of a segment
  kSnapshot,   // bits of the newest snapshot, of the one before it, or of all
  kVotes,      // one or both copies of the votes, the mark, or the identity
  kMisplaced,  // a sector of the log stands at another sector's place, and perhaps not at its own
};

// A place that has rotted, and what stands there since.
struct RottenSpot {
  std::string file;
  uint64_t offset = 0;
  std::string bytes;
};

// Empty: there is nothing of that kind yet, or it would make no difference.
std::vector<RottenSpot> Rot(env::MemoryDisk* disk, RotKind kind, Prng* prng);

// False: nobody will ever read it.
bool IsStillThere(const env::MemoryDisk& disk, const RottenSpot& spot);

}  // namespace conclave::sim
