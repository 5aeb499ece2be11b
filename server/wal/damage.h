// What damage of a log tells: whether a bad tail may be a torn write at all, and where the log had
// ended before it was damaged.
//
// Everything here reads, and judges to the safe side: rot that might be a torn write counts as one
// only if a crash can have made it, and an end that is not certain counts as beyond everything.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "conclave/server/env/disk.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {

// What a disk writes whole or not at all.
inline constexpr uint64_t kSectorBytes = 512;

// In a segment that held only zeros behind its records before the last sync batch was written: may
// the bad record at `bad` be one that a crash has torn? Then a sector of it is as it was before,
// zeros from there to its end. If none is, every byte of the record had arrived, and has changed
// since.
[[nodiscard]] bool MayBeTorn(std::string_view segment, uint64_t bad, uint32_t seed);

// A segment at or behind the damage.
struct DamagedSegment {
  std::string path;
  std::optional<SegmentHeader> header;  // nullopt: cannot be read
  uint32_t seed = 0;
};

// The position of the last entry that the log may have held, given that the record at `offset` of
// the first of these segments is damaged, or (offset 0) all of it, and that no term above
// `newest_term` was in it. Exact if the last entries are legible; else it is as late as can be.
[[nodiscard]] Position LostEnd(env::Disk& disk, std::span<const DamagedSegment> segments,
                               uint64_t offset, raft::Term newest_term);

// "At least as up-to-date" (Raft thesis 3.6.1): by term, then by index.
[[nodiscard]] bool Reaches(Position log, Position end);

}  // namespace conclave::wal
