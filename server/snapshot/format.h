// The bytes of a snapshot file (docs/formats.md has the tables): header, chunks, trailer.
//
// Integers are little-endian. The body is the state machine's and opaque here. Each chunk carries a
// CRC32C seeded by the header and its own number; the trailer carries a SHA-256 over header and
// body.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "conclave/server/raft/types.h"

namespace conclave::snapshot {

inline constexpr std::string_view kDirectory = "snapshot";
inline constexpr std::string_view kSuffix = ".snapshot";
inline constexpr std::string_view kUnfinishedSuffix = ".unfinished";
inline constexpr std::string_view kDamagedSuffix = ".damaged";
inline constexpr std::string_view kEvidenceSuffix = ".diverged";

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kChunkBytes = uint64_t{256} << 10;     // of a full chunk
inline constexpr uint64_t kChunkBytesMax = uint64_t{16} << 20;   // that a reader accepts
inline constexpr uint64_t kHeaderBytesMax = uint64_t{64} << 10;  // 2,000 members and more
inline constexpr size_t kPrefixBytes = 16;
inline constexpr size_t kChunkHeadBytes = 8;
inline constexpr size_t kHashBytes = 32;
inline constexpr size_t kTrailerBytes = 56;

struct Header {
  uint64_t cluster_id = 0;
  raft::SnapshotMeta meta;
};

[[nodiscard]] std::string EncodeHeader(const Header& header);

// Of the first kPrefixBytes of a file: the length of the whole header. DataLoss: not our format.
[[nodiscard]] absl::StatusOr<size_t> HeaderBytes(std::string_view prefix);
// DataLoss: damaged. FailedPrecondition: of a newer version.
[[nodiscard]] absl::StatusOr<Header> DecodeHeader(std::string_view bytes);

// The CRC of chunk number `number` (from 0) in a file whose header's CRC is `seed`.
[[nodiscard]] uint32_t ChunkCrc(uint32_t seed, uint64_t number, std::string_view bytes);
[[nodiscard]] uint32_t HeaderCrc(std::string_view header_bytes);

// What closes a file; it starts as an empty chunk would.
using Hash = std::array<char, kHashBytes>;
struct Trailer {
  uint64_t chunks = 0;
  uint64_t body_bytes = 0;
  Hash hash{};  // SHA-256 of header and body
};
[[nodiscard]] std::string EncodeTrailer(uint32_t seed, const Trailer& trailer);
[[nodiscard]] absl::StatusOr<Trailer> DecodeTrailer(uint32_t seed, std::string_view bytes);

// "000000000000002a-0000000000000003.snapshot" for index 42 of term 3.
[[nodiscard]] std::string FileName(const raft::SnapshotMeta& meta);
[[nodiscard]] bool IsFileName(std::string_view name);

}  // namespace conclave::snapshot
