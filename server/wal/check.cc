#include "conclave/server/wal/check.h"

#include <algorithm>
#include <optional>

#include "conclave/base/concat.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {
namespace {

std::string PathOf(std::string_view name) { return Concat(kDirectory, "/", name); }

absl::Status Damaged(std::string_view name, std::string_view what) {
  return absl::DataLossError(Concat(PathOf(name), ": ", what));
}

absl::StatusOr<SegmentHeader> ReadHeader(env::Disk& disk, std::string_view name) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk.Open(PathOf(name), env::OpenMode::kRead));
  std::string bytes(kHeaderBytes, '\0');
  CONCLAVE_ASSIGN_OR_RETURN(const size_t size, file->Read(0, bytes));
  bytes.resize(size);
  auto header = DecodeSegmentHeader(bytes);
  if (!header.ok()) return Damaged(name, std::string(header.status().message()));
  return *std::move(header);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ListSegments(env::Disk& disk) {
  CONCLAVE_ASSIGN_OR_RETURN(std::vector<std::string> names, disk.List(kDirectory));
  std::erase_if(names, [](const std::string& name) { return !ParseSegmentName(name).has_value(); });
  // They start with the number of the segment, in hexadecimal digits of equal number.
  return names;
}

absl::Status CheckSealed(env::Disk& disk, std::string_view name, std::string_view next) {
  CONCLAVE_ASSIGN_OR_RETURN(const SegmentHeader seal, ReadHeader(disk, next));
  const std::optional<ParsedName> parsed = ParseSegmentName(name);
  if (!parsed.has_value() || parsed->sequence + 1 != seal.sequence) {
    return absl::NotFoundError(Concat(PathOf(name), " is not what stands before ", next));
  }
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk.Open(PathOf(name), env::OpenMode::kReadAgain));
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  const uint64_t end = seal.previous_end;
  if (end < kHeaderBytes || end > size) return Damaged(name, "it is cut off");
  std::string content(end, '\0');
  CONCLAVE_ASSIGN_OR_RETURN(const size_t read, file->Read(0, content));
  if (read != end) return Damaged(name, "it is cut off");
  const std::string_view header = std::string_view(content).substr(0, kHeaderBytes);
  if (const auto decoded = DecodeSegmentHeader(header); !decoded.ok()) {
    return Damaged(name, std::string(decoded.status().message()));
  }
  const uint32_t seed = SegmentSeed(header);
  uint64_t offset = kRecordsStart;
  uint32_t last_crc = 0;
  while (offset < end) {
    const std::optional<Record> record = DecodeRecord(content, offset, seed);
    if (!record.has_value()) {
      return Damaged(name, Concat("a record's checksum is wrong, at ", std::to_string(offset)));
    }
    offset = record->end;
    last_crc = record->head.head_crc;
  }
  if (offset != end || last_crc != seal.previous_crc) {
    return Damaged(name, "it is not the one that the next segment follows");
  }
  return absl::OkStatus();
}

}  // namespace conclave::wal
