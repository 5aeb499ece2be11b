// The log in good times: what was appended comes back, whatever the segments look like.
#include "conclave/server/wal/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conclave/tests/wal/log_model.h"

namespace conclave::wal {
namespace {

using env::MemoryDisk;
using ::testing::HasSubstr;

TEST(LogTest, ANewLogIsEmptyAndExists) {
  MemoryDisk disk;
  EXPECT_FALSE(*Log::Exists(disk));
  const Recovered recovered = Open(disk);
  EXPECT_FALSE(recovered.existed);
  EXPECT_TRUE(recovered.entries.empty());
  EXPECT_EQ(recovered.hard_state, raft::HardState());
  EXPECT_TRUE(*Log::Exists(disk));
}

TEST(LogTest, ReopeningGivesBackEntriesAndHardState) {
  MemoryDisk disk;
  const auto entries = MakeEntries(1, 50, 3, 300);
  AppendAndSync(*Open(disk).log, Batch(entries, MakeHardState(3, 2, 40)));
  const Recovered recovered = Open(disk);
  EXPECT_TRUE(recovered.existed);
  EXPECT_EQ(recovered.entries, entries);
  EXPECT_EQ(recovered.hard_state, MakeHardState(3, 2, 40));
  EXPECT_EQ(recovered.torn_bytes, 0u);
}

TEST(LogTest, EmptyPayloadsAndOddSizesComeBack) {
  MemoryDisk disk;
  std::vector<raft::Entry> entries;
  for (uint64_t size = 0; size < 40; ++size) entries.push_back(MakeEntry(size + 1, 1, size));
  auto log = std::move(Open(disk).log);
  for (const raft::Entry& entry : entries) AppendAndSync(*log, Batch({&entry, 1}));
  EXPECT_EQ(Open(disk).entries, entries);
}

TEST(LogTest, AnOverlappingEntryReplacesTheTail) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch(MakeEntries(1, 10, 1)));
  const auto replacement = MakeEntries(5, 6, 2);
  AppendAndSync(*log, Batch(replacement));
  EXPECT_EQ(log->last_index(), raft::Index(6));
  auto expected = MakeEntries(1, 4, 1);
  expected.insert(expected.end(), replacement.begin(), replacement.end());
  EXPECT_EQ(Open(disk).entries, expected);
}

TEST(LogTest, SeveralBatchesInOneAppendKeepTheirOrder) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  const auto first = MakeEntries(1, 3, 1);
  const auto second = MakeEntries(3, 4, 2);
  const LogBatch batches[] = {Batch(first, MakeHardState(1, 1, 0)), LogBatch(),
                              Batch(second, MakeHardState(2, 3, 2))};
  ASSERT_TRUE(log->Append(batches).ok());
  ASSERT_TRUE(log->Sync().ok());
  const Recovered recovered = Open(disk);
  EXPECT_EQ(recovered.hard_state, MakeHardState(2, 3, 2));
  ASSERT_EQ(recovered.entries.size(), 4u);
  EXPECT_EQ(recovered.entries[1], first[1]);
  EXPECT_EQ(recovered.entries[2], second[0]);
}

TEST(LogTest, SegmentsRotateAndCarryTheHardStateOn) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch({}, MakeHardState(1, 1, 0)));
  const auto entries = MakeEntries(1, 400, 1, 300);
  for (const raft::Entry& entry : entries) AppendAndSync(*log, Batch({&entry, 1}));
  EXPECT_GT(log->segment_count(), 8u);
  ASSERT_TRUE(log->TruncatePrefix(raft::Index(390)).ok());
  EXPECT_LE(log->segment_count(), 2u);
  const Recovered recovered = Open(disk, At(390, 1));
  EXPECT_EQ(recovered.hard_state, MakeHardState(1, 1, 0));
  EXPECT_EQ(recovered.entries, MakeEntries(391, 400, 1, 300));
}

TEST(LogTest, ABatchLargerThanASegmentFits) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  const auto entries = MakeEntries(1, 5, 1, 30'000);
  AppendAndSync(*log, Batch(MakeEntries(1, 1, 1)));
  AppendAndSync(*log, Batch(entries));
  AppendAndSync(*log, Batch(MakeEntries(6, 6, 1)));
  const Recovered recovered = Open(disk);
  ASSERT_EQ(recovered.entries.size(), 6u);
  EXPECT_EQ(recovered.entries[4], entries[4]);
}

TEST(LogTest, PrefixTruncationKeepsWhatIsStillNeeded) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  for (uint64_t index = 1; index <= 200; ++index) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
  }
  for (uint64_t cut : {1, 60, 100, 101, 150}) {
    ASSERT_TRUE(log->TruncatePrefix(raft::Index(cut)).ok());
    const Recovered recovered = Open(*disk.Clone(), At(cut, 1));
    EXPECT_EQ(recovered.entries, MakeEntries(cut + 1, 200, 1, 300));
  }
}

TEST(LogTest, RemovedSegmentsAreUsedAgainAndTheirOldRecordsNeverMatch) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  uint64_t index = 1;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 100; ++i, ++index) {
      AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
    }
    ASSERT_TRUE(log->TruncatePrefix(raft::Index(index - 20)).ok());
    const auto clone = disk.Clone();
    const Recovered recovered = Open(*clone, At(index - 20, 1));
    EXPECT_EQ(recovered.entries, MakeEntries(index - 19, index - 1, 1, 300));
    EXPECT_EQ(recovered.torn_bytes, 0u);
  }
  EXPECT_TRUE(disk.Exists("wal/spare"));
}

TEST(LogTest, ASpareIsAskedForOnceAndUsed) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  EXPECT_FALSE(log->BeginSpare());
  uint64_t index = 1;
  while (!log->BeginSpare()) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
    ++index;
  }
  EXPECT_FALSE(log->BeginSpare());
  log->EndSpare(Log::MakeSpare(disk, log->segment_bytes()).ok());
  EXPECT_TRUE(disk.Exists("wal/spare"));
  while (log->segment_count() == 1) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
    ++index;
  }
  EXPECT_FALSE(disk.Exists("wal/spare"));
  EXPECT_EQ(Open(disk).entries.size(), index - 1);
}

TEST(LogTest, AResetStartsTheLogAnewBehindASnapshot) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch(MakeEntries(1, 30, 1)));
  const auto behind = MakeEntries(21, 22, 4);
  AppendAndSync(*log,
                {.reset = At(20, 3), .hard_state = MakeHardState(4, 1, 20), .entries = behind});
  const Recovered recovered = Open(*disk.Clone(), At(20, 3));
  EXPECT_EQ(recovered.entries, behind);
  EXPECT_EQ(recovered.hard_state, MakeHardState(4, 1, 20));
  // Without that snapshot, entries are missing.
  const auto older = Log::Recover(*disk.Clone(), SmallSegments(), At(10, 1));
  EXPECT_TRUE(absl::IsDataLoss(older.status())) << older.status();
  ASSERT_TRUE(DamageOf(older.status()).has_value());
  EXPECT_EQ(DamageOf(older.status())->first, raft::Index(11));
  EXPECT_EQ(DamageOf(older.status())->last, raft::Index(20));
}

TEST(LogTest, EntriesThatDoNotContinueTheSnapshotAreVoid) {
  MemoryDisk disk;
  AppendAndSync(*Open(disk).log, Batch(MakeEntries(1, 30, 1)));
  {
    const Recovered same_term = Open(*disk.Clone(), At(20, 1));
    EXPECT_EQ(same_term.entries, MakeEntries(21, 30, 1));
  }
  {
    Recovered other_term = Open(disk, At(20, 2));
    EXPECT_TRUE(other_term.entries.empty());
    EXPECT_EQ(other_term.log->last_index(), raft::Index(20));
    AppendAndSync(*other_term.log, Batch(MakeEntries(21, 21, 3)));
  }
  EXPECT_EQ(Open(disk, At(20, 2)).entries, MakeEntries(21, 21, 3));
}

TEST(LogTest, ASnapshotAheadOfTheLogStartsItAnew) {
  MemoryDisk disk;
  AppendAndSync(*Open(disk).log, Batch(MakeEntries(1, 30, 1)));
  AppendAndSync(*Open(disk, At(100, 5)).log, Batch(MakeEntries(101, 102, 5)));
  EXPECT_EQ(Open(disk, At(100, 5)).entries, MakeEntries(101, 102, 5));
}

TEST(LogTest, AFoundingLogStartsBehindItsFoundingSnapshot) {
  MemoryDisk disk;
  AppendAndSync(*Open(disk, At(1, 1)).log, Batch(MakeEntries(2, 5, 1)));
  EXPECT_EQ(Open(disk, At(1, 1)).entries, MakeEntries(2, 5, 1));
}

TEST(LogTest, ReopeningManyTimesAddsNoSegments) {
  MemoryDisk disk;
  for (uint64_t index = 1; index <= 30; ++index) {
    Recovered recovered = Open(disk);
    EXPECT_EQ(recovered.entries.size(), index - 1);
    AppendAndSync(*recovered.log, Batch(MakeEntries(index, index, 1)));
    ASSERT_TRUE(recovered.log->MarkSynced().ok());
    EXPECT_EQ(recovered.log->segment_count(), 1u);
  }
}

TEST(LogTest, AProofIsWrittenOncePerSync) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch(MakeEntries(1, 1, 1)));
  const uint64_t before = log->remaining_bytes();
  ASSERT_TRUE(log->MarkSynced().ok());
  ASSERT_TRUE(log->MarkSynced().ok());
  ASSERT_TRUE(log->Sync().ok());
  ASSERT_TRUE(log->MarkSynced().ok());
  EXPECT_EQ(before - log->remaining_bytes(), kHeadBytes);
  AppendAndSync(*log, Batch(MakeEntries(2, 2, 1)));
  EXPECT_EQ(Open(disk).entries, MakeEntries(1, 2, 1));
}

// ---- Directories that are not ours.

absl::Status WhyNot(env::Disk& disk, const Options& options) {
  return Log::Recover(disk, options, Position()).status();
}

TEST(LogTest, AnotherClustersDirectoryIsRefused) {
  MemoryDisk disk("/data");
  AppendAndSync(*Open(disk).log, Batch(MakeEntries(1, 1, 1)));
  Options other = SmallSegments();
  other.cluster_id = 0xc2;
  EXPECT_TRUE(absl::IsFailedPrecondition(WhyNot(disk, other)));
  EXPECT_EQ(
      WhyNot(disk, other).message(),
      "/data/wal/0000000000000001-0000000000000001.log belongs to cluster c1, but this server "
      "is started as a member of cluster c2");
}

TEST(LogTest, AnotherMembersDirectoryIsRefused) {
  MemoryDisk disk("/data");
  AppendAndSync(*Open(disk).log, Batch(MakeEntries(1, 1, 1)));
  Options other = SmallSegments();
  other.member_id = raft::NodeId(0xa2);
  EXPECT_TRUE(absl::IsFailedPrecondition(WhyNot(disk, other)));
  EXPECT_THAT(std::string(WhyNot(disk, other).message()), HasSubstr("belongs to member a1"));
}

TEST(LogTest, ANewerFormatIsRefused) {
  MemoryDisk disk("/data");
  Open(disk);
  const std::string path = disk.Files().front();
  std::string content = disk.Content(path);
  StoreLittle(&content[8], uint32_t{2});
  StoreLittle(&content[kHeaderCrcAt], Crc32c(std::string_view(content).substr(0, kHeaderCrcAt)));
  disk.SetContent(path, content);
  const absl::Status status = WhyNot(disk, SmallSegments());
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("its format version is 2, this program reads version 1"));
}

TEST(LogTest, AnEtcdDirectoryIsRefused) {
  MemoryDisk disk("/data");
  ASSERT_TRUE(disk.CreateDirectory("member").ok());
  const absl::Status status = WhyNot(disk, SmallSegments());
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/data is a data directory of etcd"));
}

TEST(LogTest, AnEtcdLogIsRefused) {
  MemoryDisk disk("/data");
  ASSERT_TRUE(disk.CreateDirectory("wal").ok());
  disk.SetContent("wal/0000000000000000-0000000000000000.wal", "x");
  EXPECT_TRUE(absl::IsFailedPrecondition(WhyNot(disk, SmallSegments())));
}

TEST(LogTest, AMissingSegmentInTheMiddleIsDataLoss) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  for (uint64_t index = 1; index <= 200; ++index) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
  }
  const auto files = disk.Files();
  ASSERT_GT(files.size(), 4u);
  ASSERT_TRUE(disk.Remove(files[1]).ok());
  const absl::Status status = WhyNot(disk, SmallSegments());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  ASSERT_TRUE(DamageOf(status).has_value());
  EXPECT_EQ(DamageOf(status)->first, raft::Index(1));
}

TEST(LogTest, OldSegmentsThatReappearAreNotNeeded) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  for (uint64_t index = 1; index <= 200; ++index) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
  }
  const std::string oldest = disk.Files().front();
  const std::string content = disk.Content(oldest);
  ASSERT_TRUE(log->TruncatePrefix(raft::Index(150)).ok());
  disk.SetContent(oldest, content);
  EXPECT_EQ(Open(disk, At(150, 1)).entries, MakeEntries(151, 200, 1, 300));
  EXPECT_FALSE(disk.Exists(oldest));
}

TEST(LogTest, AFullDiskStopsTheSpareButNotTheRestOfTheSegment) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  disk.set_capacity_bytes(20 << 10);
  uint64_t index = 1;
  for (; !log->BeginSpare(); ++index) {
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
  }
  const absl::Status spare = Log::MakeSpare(disk, log->segment_bytes());
  EXPECT_TRUE(absl::IsResourceExhausted(spare)) << spare;
  log->EndSpare(spare.ok());
  AppendAndSync(*log, Batch(MakeEntries(index, index, 1, 300)));
  // And it starts again on the full disk.
  EXPECT_EQ(Open(disk).entries.size(), index);
}

// No segment that was set aside holds them: the room is asked for before they are written.
TEST(LogTest, WritesLargerThanASegmentWaitForRoomOnAFullDisk) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  uint64_t index = 1;
  for (; !log->BeginSpare(); ++index) AppendAndSync(*log, Batch(MakeEntries(index, index, 1)));
  log->EndSpare(Log::MakeSpare(disk, log->segment_bytes()).ok());
  constexpr uint64_t kLarge = 100'000;
  for (const uint64_t end = index + 3; index < end; ++index) {
    disk.set_capacity_bytes(0);
    const absl::Status full = log->EnsureRoom(kLarge + 200);
    ASSERT_TRUE(absl::IsResourceExhausted(full)) << full;
    EXPECT_EQ(Open(*disk.Clone()).entries.size(), index - 1);
    disk.set_capacity_bytes(UINT64_MAX);
    ASSERT_TRUE(log->EnsureRoom(kLarge + 200).ok());
    disk.set_capacity_bytes(0);
    AppendAndSync(*log, Batch(MakeEntries(index, index, 1, kLarge)));
  }
  const Recovered recovered = Open(disk);
  ASSERT_EQ(recovered.entries.size(), index - 1);
  EXPECT_EQ(recovered.entries.back(), MakeEntry(index - 1, 1, kLarge));
}

}  // namespace
}  // namespace conclave::wal
