// Fuzzes the reader of snapshots: one file, as bytes.
//
// Input: one byte of flags, then the file. Flag 1 makes the header's checksum right, flag 2 those
// of the chunks and the trailer, hash included, as far as the lengths lead. Whatever comes, reading
// must end with a status; what is accepted has the size that it says.
#include <cstring>

#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/sha256.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave::snapshot {
namespace {

constexpr uint64_t kCluster = 1;
constexpr uint8_t kFixHeader = 1;
constexpr uint8_t kFixChunks = 2;

void Store(uint32_t value, size_t at, std::string* file) { std::memcpy(&(*file)[at], &value, 4); }

void FixChunks(size_t at, uint32_t seed, std::string* file) {
  Sha256 hash;
  hash.Append(std::string_view(*file).substr(0, at));
  for (uint64_t number = 0; at + kChunkHeadBytes <= file->size(); ++number) {
    uint32_t length = 0;
    std::memcpy(&length, &(*file)[at], 4);
    if (length == 0) {
      if (file->size() - at < kTrailerBytes) return;
      const Hash sum = hash.Finish();
      std::memcpy(&(*file)[at + 20], sum.data(), sum.size());
      const std::string_view covered = std::string_view(*file).substr(at, kTrailerBytes - 4);
      Store(Crc32cExtend(seed, covered), at + kTrailerBytes - 4, file);
      return;
    }
    if (length > file->size() - at - kChunkHeadBytes) return;
    const std::string_view body = std::string_view(*file).substr(at + kChunkHeadBytes, length);
    hash.Append(body);
    Store(ChunkCrc(seed, number, body), at + 4, file);
    at += kChunkHeadBytes + length;
  }
}

void RunOne(std::string_view input) {
  if (input.empty()) return;
  const auto flags = static_cast<uint8_t>(input[0]);
  std::string file(input.substr(1));
  std::string name = FileName({.index = raft::Index(1), .term = raft::Term(1), .conf = {}});
  const auto header_bytes = HeaderBytes(std::string_view(file).substr(0, kPrefixBytes));
  if (header_bytes.ok() && *header_bytes <= file.size()) {
    const auto header = std::string_view(file).substr(0, *header_bytes);
    if ((flags & kFixHeader) != 0) {
      Store(Crc32c(header.substr(0, header.size() - 4)), header.size() - 4, &file);
    }
    if (const auto decoded = DecodeHeader(header); decoded.ok()) {
      name = FileName(decoded->meta);
      // What can be read can be written, and is the same.
      if (decoded->meta.conf.auto_leave || header[40] == 0) {
        CONCLAVE_CHECK(EncodeHeader(*decoded) == header);
      }
      if ((flags & kFixChunks) != 0) FixChunks(header.size(), HeaderCrc(header), &file);
    }
  }
  env::MemoryDisk disk;
  CONCLAVE_CHECK(disk.CreateDirectory(kDirectory).ok());
  disk.SetContent(std::string(kDirectory) + "/" + name, file);
  const auto reader = Reader::Open(disk, name, kCluster);
  if (!reader.ok()) {
    CONCLAVE_CHECK(absl::IsDataLoss(reader.status()) || absl::IsFailedPrecondition(reader.status()),
                   reader.status().ToString());
    return;
  }
  const auto body_bytes = (*reader)->Verify();
  CONCLAVE_CHECK(body_bytes.ok() || absl::IsDataLoss(body_bytes.status()),
                 body_bytes.status().ToString());
  if (body_bytes.ok()) CONCLAVE_CHECK(*body_bytes < file.size());
}

}  // namespace
}  // namespace conclave::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  conclave::snapshot::RunOne({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace conclave;
  using namespace conclave::snapshot;
  std::vector<std::string> seeds;
  for (uint8_t flags : {0, 1, 2, 3}) {
    for (size_t body : {0, 10, 3000}) {
      env::MemoryDisk disk;
      raft::SnapshotMeta meta{.index = raft::Index(7), .term = raft::Term(2), .conf = {}};
      for (size_t i = 0; i < body % 7; ++i) meta.conf.voters.push_back(raft::NodeId(i + 1));
      auto writer = std::move(*Writer::Create(disk, {.cluster_id = kCluster, .meta = meta}));
      CONCLAVE_CHECK(writer->Append(std::string(body, 'b')).ok());
      CONCLAVE_CHECK(writer->Finish().ok());
      seeds.push_back(std::string(1, static_cast<char>(flags)) +
                      disk.Content(disk.Files().front()));
    }
  }
  return seeds;
}
