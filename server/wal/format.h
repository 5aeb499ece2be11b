// The bytes of the log (docs/formats.md has the tables): how a segment's header and its records are
// encoded, and when a decoded one is believed. Integers are little-endian; records start at
// multiples of 8.
//
//   segment  = header (128 bytes), zeros up to kRecordsStart, record*, anything
//   record   = head (40 bytes), payload, zeros up to a multiple of 8
//   payload  = [reset 16] [hard state 24] entry head (16 bytes)*, entry payload*
//
// Everything here is a function of its arguments. A parser never trusts a number before the CRC
// over it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "conclave/base/little_endian.h"
#include "conclave/server/raft/types.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {

inline constexpr std::string_view kMagic = "CNCLVWAL";
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr size_t kHeaderBytes = 128;
inline constexpr size_t kHeaderCrcAt = 124;
inline constexpr uint64_t kRecordsStart = 4096;  // a page of its own for the header
inline constexpr size_t kHeadBytes = 40;
inline constexpr size_t kResetBytes = 16;
inline constexpr size_t kHardStateBytes = 24;
inline constexpr size_t kEntryHeadBytes = 16;
inline constexpr uint64_t kAlignment = 8;
inline constexpr uint64_t kPageBytes = 4096;

inline constexpr std::string_view kSegmentSuffix = ".log";
inline constexpr std::string_view kSpareName = "spare";
inline constexpr std::string_view kSpareUnfinishedName = "spare.unfinished";
inline constexpr std::string_view kReserveName = "reserve";
inline constexpr std::string_view kReserveUnfinishedName = "reserve.unfinished";
inline constexpr std::string_view kNextName = "next";  // a segment that got no name yet

struct SegmentHeader {
  uint64_t cluster_id = 0;
  raft::NodeId member_id;
  uint64_t sequence = 0;       // 1, 2, ...
  uint64_t previous_end = 0;   // where the records of segment `sequence` - 1 end; 0: there was none
  uint32_t previous_crc = 0;   // head CRC of its last record; 0 if it has none
  Position last;               // of the log, before this segment
  raft::HardState hard_state;  // as of then
  uint64_t sync_batch = 0;     // the number of the first sync batch in it
  bool zeroed = false;         // all behind the header was zeros when it began

  friend bool operator==(const SegmentHeader&, const SegmentHeader&);
};

// kHeaderBytes bytes. The CRC at their end is the seed of the segment's records.
[[nodiscard]] std::string EncodeSegmentHeader(const SegmentHeader& header);
// DataLoss: not a header, or a damaged one. FailedPrecondition: of a newer version.
[[nodiscard]] absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::string_view bytes);
// The seed of the records behind these header bytes.
[[nodiscard]] uint32_t SegmentSeed(std::string_view header_bytes);

// "0000000000000002-0000000000004e21.log": sequence and first index.
[[nodiscard]] std::string SegmentName(uint64_t sequence, raft::Index first);
struct ParsedName {
  uint64_t sequence = 0;
  raft::Index first;
};
[[nodiscard]] std::optional<ParsedName> ParseSegmentName(std::string_view name);

enum RecordFlag : uint16_t {
  kHasReset = 1,
  kHasHardState = 2,
};
inline constexpr uint16_t kRecordFlagsAll = kHasReset | kHasHardState;

struct RecordHead {
  uint32_t head_crc = 0;  // over the segment's seed, the record's offset and the rest of the head
  uint32_t payload_crc = 0;  // CRC32C of the payload
  uint64_t sync_batch = 0;
  uint32_t batch_start = 0;  // offset of the first record of the sync batch
  uint32_t length = 0;       // of the payload
  raft::Index first;         // of the entries; 0 if there are none
  uint32_t entry_count = 0;
  uint16_t flags = 0;

  [[nodiscard]] bool has(RecordFlag flag) const { return (flags & flag) != 0; }
  [[nodiscard]] uint64_t fixed_bytes() const {
    return (has(kHasReset) ? kResetBytes : 0) + (has(kHasHardState) ? kHardStateBytes : 0) +
           uint64_t{entry_count} * kEntryHeadBytes;
  }
};

// Writes the part of a payload that stands before the entries' own payloads to `out`; gives its
// length, fixed_bytes().
size_t EncodeFixed(const LogBatch& batch, char* out);

// Writes kHeadBytes to `out`, the head's CRC included; gives that.
uint32_t EncodeRecordHead(const RecordHead& head, uint32_t seed, uint64_t offset, char* out);

// The head at `offset` of a segment's bytes, if its CRC is right and what it says is possible.
[[nodiscard]] std::optional<RecordHead> DecodeRecordHead(std::string_view segment, uint64_t offset,
                                                         uint32_t seed);

struct Record {
  RecordHead head;
  std::string_view payload;
  uint64_t end = 0;  // where the next record starts

  [[nodiscard]] std::optional<Position> reset() const;
  [[nodiscard]] std::optional<raft::HardState> hard_state() const;
  struct EntryView {
    raft::Term term;
    raft::Index index;
    raft::EntryType type = raft::EntryType::kCommand;
    std::string_view payload;
  };
  void ForEachEntry(absl::FunctionRef<void(const EntryView&)> each) const;
};

// The record at `offset`, if all of it is valid.
[[nodiscard]] std::optional<Record> DecodeRecord(std::string_view segment, uint64_t offset,
                                                 uint32_t seed);

// After the record at `bad` turned out bad: the offset of a later one whose head is valid and says
// that its sync batch started behind `bad`. Then what stands at `bad` had been synced. Linear in
// the size of the segment.
[[nodiscard]] std::optional<uint64_t> FindProofBehind(std::string_view segment, uint64_t bad,
                                                      uint32_t seed);

[[nodiscard]] constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kAlignment - 1) & ~(kAlignment - 1);
}

}  // namespace conclave::wal
