// What rots in the simulator is what a member can find: never silently less than was synced.
#include "conclave/tests/sim/rot.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/wal/log.h"

namespace conclave::sim {
namespace {

constexpr uint64_t kSegments = 4 * wal::kSegmentBytesMin;

wal::Options Owner() {
  return {.cluster_id = 7, .member_id = raft::NodeId(1), .segment_bytes = kSegments};
}

// A log of so many sync batches, as a process that was killed leaves it.
uint64_t WriteLog(env::MemoryDisk* disk, Prng* prng) {
  auto recovered = wal::Log::Recover(*disk, Owner(), {});
  EXPECT_TRUE(recovered.ok()) << recovered.status();
  wal::Log& log = *recovered->log;
  const uint64_t batches = prng->Below(60) + 3;
  uint64_t index = 0;
  for (uint64_t i = 0; i < batches; ++i) {
    std::vector<raft::Entry> entries;
    for (uint64_t count = prng->Below(5) + 1; count > 0; --count) {
      entries.push_back({.term = raft::Term(1),
                         .index = raft::Index(++index),
                         .type = raft::EntryType::kCommand,
                         .payload = Bytes::Copy(std::string(prng->Below(900), 'x'))});
    }
    EXPECT_TRUE(log.Append(wal::LogBatch{.reset = {}, .hard_state = {}, .entries = entries}).ok());
    EXPECT_TRUE(log.Sync().ok());
    if (prng->Chance(1, 3)) EXPECT_TRUE(log.MarkSynced().ok());
  }
  return index;
}

TEST(Rot, OfTheLogIsNeverTakenForATornWrite) {
  uint64_t found = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Prng prng(seed);
    env::MemoryDisk disk;
    const uint64_t entries = WriteLog(&disk, &prng);
    prng.Chance(1, 2) ? disk.Crash(prng) : disk.KillProcess();
    const auto kind = prng.Chance(1, 2) ? RotKind::kLog : RotKind::kMisplaced;
    const std::vector<RottenSpot> spots = Rot(&disk, kind, &prng);
    if (spots.empty()) continue;
    for (const RottenSpot& spot : spots) EXPECT_TRUE(IsStillThere(disk, spot));
    const auto recovered = wal::Log::Recover(disk, Owner(), {});
    if (absl::IsDataLoss(recovered.status())) {
      ++found;
      continue;
    }
    // Bytes that nobody reads.
    ASSERT_TRUE(recovered.ok()) << recovered.status();
    EXPECT_EQ(recovered->entries.size(), entries) << "seed " << seed;
  }
  EXPECT_GT(found, 200u);
}

TEST(Rot, IsGoneWithItsFile) {
  Prng prng(1);
  env::MemoryDisk disk;
  WriteLog(&disk, &prng);
  disk.KillProcess();
  std::vector<RottenSpot> spots;
  while (spots.empty()) spots = Rot(&disk, RotKind::kLog, &prng);
  EXPECT_TRUE(IsStillThere(disk, spots[0]));
  ASSERT_TRUE(disk.Remove(spots[0].file).ok());
  EXPECT_FALSE(IsStillThere(disk, spots[0]));
}

TEST(Rot, NothingRotsOnAnEmptyDisk) {
  Prng prng(1);
  env::MemoryDisk disk;
  for (const RotKind kind :
       {RotKind::kLog, RotKind::kSnapshot, RotKind::kVotes, RotKind::kMisplaced}) {
    EXPECT_TRUE(Rot(&disk, kind, &prng).empty());
  }
}

}  // namespace
}  // namespace conclave::sim
