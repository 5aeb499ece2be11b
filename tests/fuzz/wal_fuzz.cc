// Fuzzes the recovery of the log: one segment, as bytes.
//
// Input: one byte of flags; the segment's header; its records. Without help hardly any mutation
// would get past a checksum, so flag 1 makes the header's right, and flag 2 those of the records,
// as far as their lengths lead. Whatever comes, recovery must end with a status; a log that it
// accepts is consistent, reads the same again, and takes a further entry.
#include <cstring>

#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave::wal {
namespace {

constexpr Options kOptions{
    .cluster_id = 1, .member_id = raft::NodeId(2), .segment_bytes = 16 << 10};
constexpr Position kSnapshot{.index = raft::Index(5), .term = raft::Term(1)};
constexpr uint8_t kFixHeader = 1;
constexpr uint8_t kFixRecords = 2;

void FixRecords(std::string* segment) {
  const uint32_t seed = SegmentSeed(*segment);
  for (uint64_t at = kRecordsStart; at + kHeadBytes <= segment->size();) {
    char* const head = segment->data() + at;
    const auto length = LoadLittle<uint32_t>(head + 20);
    if (length > segment->size() - at - kHeadBytes) return;
    StoreLittle(head + 4, Crc32c({head + kHeadBytes, length}));
    char offset[8];
    StoreLittle(offset, at);
    StoreLittle(head, Crc32cExtend(Crc32cExtend(seed, {offset, 8}), {head + 4, kHeadBytes - 4}));
    at = AlignUp(at + kHeadBytes + length);
  }
}

void RunOne(std::string_view input) {
  if (input.empty()) return;
  const auto flags = static_cast<uint8_t>(input[0]);
  input.remove_prefix(1);
  std::string segment(input.substr(0, kHeaderBytes));
  const std::string_view records = input.substr(segment.size());
  segment.resize(kRecordsStart);
  segment.append(records.substr(0, 64 << 10));
  if ((flags & kFixHeader) != 0) {
    StoreLittle(&segment[kHeaderCrcAt], Crc32c(std::string_view(segment).substr(0, kHeaderCrcAt)));
  }
  if ((flags & kFixRecords) != 0) FixRecords(&segment);
  if (segment.size() < kOptions.segment_bytes) segment.resize(kOptions.segment_bytes);
  env::MemoryDisk disk;
  CONCLAVE_CHECK(disk.CreateDirectory(kDirectory).ok());
  const auto last_index = LoadLittle<uint64_t>(&segment[56]);
  disk.SetContent(
      "wal/" + SegmentName(LoadLittle<uint64_t>(&segment[32]), raft::Index(last_index + 1)),
      segment);
  auto recovered = Log::Recover(disk, kOptions, kSnapshot);
  if (!recovered.ok()) {
    CONCLAVE_CHECK(
        absl::IsDataLoss(recovered.status()) || absl::IsFailedPrecondition(recovered.status()),
        recovered.status().ToString());
    return;
  }
  const std::vector<raft::Entry>& entries = recovered->entries;
  for (size_t i = 0; i < entries.size(); ++i) {
    CONCLAVE_CHECK(entries[i].index == kSnapshot.index + 1 + i);
  }
  std::vector<raft::Entry> expected = entries;
  expected.push_back({.term = raft::Term(9),
                      .index = recovered->log->last_index() + 1,
                      .type = raft::EntryType::kCommand,
                      .payload = Bytes::Copy("next")});
  CONCLAVE_CHECK(expected.back().index == kSnapshot.index + expected.size());
  CONCLAVE_CHECK(
      recovered->log->Append({.reset = {}, .hard_state = {}, .entries = {&expected.back(), 1}})
          .ok());
  CONCLAVE_CHECK(recovered->log->Sync().ok());
  const auto again = Log::Recover(disk, kOptions, kSnapshot);
  CONCLAVE_CHECK(again.ok(), again.status().ToString());
  CONCLAVE_CHECK(again->entries == expected && again->hard_state == recovered->hard_state);
}

// The segment that a log writes, as an input.
std::string Input(const env::MemoryDisk& disk, uint8_t flags) {
  const std::string content = disk.Content(disk.Files().front());
  const size_t end = std::max<size_t>(content.find_last_not_of('\0') + 9, kRecordsStart);
  return std::string(1, static_cast<char>(flags)) + content.substr(0, kHeaderBytes) +
         content.substr(kRecordsStart, end - kRecordsStart);
}

}  // namespace
}  // namespace conclave::wal

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  conclave::wal::RunOne({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace conclave;
  using namespace conclave::wal;
  const auto entries = [](uint64_t first, uint64_t count, uint64_t term) {
    std::vector<raft::Entry> made;
    for (uint64_t i = 0; i < count; ++i) {
      made.push_back({.term = raft::Term(term),
                      .index = raft::Index(first + i),
                      .type = i % 2 == 0 ? raft::EntryType::kCommand : raft::EntryType::kConfChange,
                      .payload = Bytes::Copy(std::string(i * 7, 'p'))});
    }
    return made;
  };
  std::vector<std::string> seeds;
  for (uint8_t flags : {0, 1, 2, 3}) {
    env::MemoryDisk disk;
    auto log = std::move(Log::Recover(disk, kOptions, kSnapshot)->log);
    seeds.push_back(Input(disk, flags));
    const auto first = entries(6, 4, 1);
    const auto replacing = entries(8, 2, 2);
    const auto behind = entries(13, 1, 3);
    const raft::HardState state{
        .term = raft::Term(2), .vote = raft::NodeId(1), .commit = raft::Index(7)};
    CONCLAVE_CHECK(log->Append({.reset = {}, .hard_state = state, .entries = first}).ok());
    CONCLAVE_CHECK(log->Sync().ok() && log->MarkSynced().ok());
    seeds.push_back(Input(disk, flags));
    const LogBatch batches[] = {{.reset = {}, .hard_state = {}, .entries = replacing},
                                {.reset = {}, .hard_state = state, .entries = {}}};
    CONCLAVE_CHECK(log->Append(batches).ok() && log->Sync().ok());
    seeds.push_back(Input(disk, flags));
    CONCLAVE_CHECK(log->Append({.reset = Position{.index = raft::Index(12), .term = raft::Term(3)},
                                .hard_state = state,
                                .entries = behind})
                       .ok());
    CONCLAVE_CHECK(log->Sync().ok());
    seeds.push_back(Input(disk, flags));
  }
  return seeds;
}
