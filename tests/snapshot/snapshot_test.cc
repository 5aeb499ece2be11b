// Snapshot files: what is written comes back, damage never does, and a crash leaves the one before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/prng.h"
#include "conclave/base/status.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/writer.h"

namespace conclave::snapshot {
namespace {

using env::MemoryDisk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t kCluster = 0xc1;

raft::SnapshotMeta Meta(uint64_t index) {
  return {.index = raft::Index(index),
          .term = raft::Term(3),
          .conf = {.voters = {raft::NodeId(1), raft::NodeId(2)},
                   .voters_outgoing = {raft::NodeId(1), raft::NodeId(5)},
                   .learners = {raft::NodeId(7)},
                   .learners_next = {raft::NodeId(9)},
                   .auto_leave = true}};
}

std::string Body(size_t bytes) {
  Prng prng(bytes);
  std::string body(bytes, '\0');
  for (char& c : body) c = static_cast<char>(prng.Next());
  return body;
}

absl::Status Write(env::Disk& disk, uint64_t index, std::string_view body, size_t piece = 1000) {
  CONCLAVE_ASSIGN_OR_RETURN(auto writer,
                            Writer::Create(disk, {.cluster_id = kCluster, .meta = Meta(index)}));
  for (size_t at = 0; at < body.size(); at += piece) {
    CONCLAVE_RETURN_IF_ERROR(writer->Append(body.substr(at, piece)));
  }
  return writer->Finish().status();
}

absl::StatusOr<std::string> ReadAll(Reader& reader) {
  std::string body;
  while (true) {
    CONCLAVE_ASSIGN_OR_RETURN(const auto chunk, reader.Next());
    if (!chunk.has_value()) return body;
    body.append(chunk->view());
  }
}

std::string NameOf(uint64_t index) { return FileName(Meta(index)); }
std::string PathOf(uint64_t index) { return Concat(kDirectory, "/", NameOf(index)); }

TEST(SnapshotTest, BodiesOfAllSizesComeBack) {
  for (size_t size : {size_t{0}, size_t{1}, kChunkBytes - 1, kChunkBytes, kChunkBytes + 1,
                      3 * kChunkBytes, size_t{9} << 20}) {
    for (size_t piece : {size_t{777}, size_t{kChunkBytes}, size_t{1} << 20}) {
      if (size > (1 << 20) && piece < 1000) continue;
      MemoryDisk disk;
      const std::string body = Body(size);
      ASSERT_TRUE(Write(disk, 42, body, piece).ok());
      auto reader = Reader::Open(disk, NameOf(42), kCluster);
      ASSERT_TRUE(reader.ok()) << reader.status();
      EXPECT_EQ((*reader)->meta(), Meta(42));
      const auto back = ReadAll(**reader);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(*back, body);
    }
  }
}

TEST(SnapshotTest, TheNameTellsIndexAndTerm) {
  EXPECT_EQ(NameOf(42), "000000000000002a-0000000000000003.snapshot");
  EXPECT_TRUE(IsFileName(NameOf(42)));
  EXPECT_FALSE(IsFileName("000000000000002a-0000000000000003.snapshot.unfinished"));
}

TEST(SnapshotTest, NothingIsVisibleBeforeItIsFinished) {
  MemoryDisk disk;
  {
    auto writer = Writer::Create(disk, {.cluster_id = kCluster, .meta = Meta(1)});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Append("half").ok());
    EXPECT_THAT(*ListNewestFirst(disk), ElementsAre());
  }
  EXPECT_THAT(disk.Files(), ElementsAre());
}

TEST(SnapshotTest, UnfinishedFilesCountForNothingAndTheNextWriterRemovesThem) {
  MemoryDisk disk;
  ASSERT_TRUE(disk.CreateDirectory(kDirectory).ok());
  const std::string name = Concat("x", kUnfinishedSuffix);
  disk.SetContent(Concat(kDirectory, "/", name), "x");
  const auto newest = OpenNewest(disk, kCluster);
  ASSERT_TRUE(newest.ok());
  EXPECT_EQ(newest->reader, nullptr);
  EXPECT_THAT(*ListUnfinished(disk), ElementsAre(name));
  ASSERT_TRUE(Write(disk, 42, Body(100)).ok());
  EXPECT_THAT(disk.Files(), ElementsAre(PathOf(42)));
}

// When the process ends, the chunks that were whole can be read, and what follows is damage.
TEST(SnapshotTest, OfAnUnfinishedFileTheChunksCanBeRead) {
  MemoryDisk disk;
  const std::string body = Body(3 * kChunkBytes + 10);
  {
    Saver saver(&disk, kCluster, 2);
    ASSERT_TRUE(saver.Take({.meta = Meta(7), .data = Bytes::Copy(body), .first = true}).ok());
  }
  const auto names = ListUnfinished(disk);
  ASSERT_THAT(*names, ElementsAre(Concat(FileName(Meta(7)), kUnfinishedSuffix)));
  auto reader = Reader::Open(disk, names->front(), kCluster);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->meta(), Meta(7));
  std::string read;
  absl::StatusOr<std::optional<Bytes>> chunk;
  while ((chunk = (*reader)->Next()).ok() && chunk->has_value()) read.append((*chunk)->view());
  EXPECT_TRUE(absl::IsDataLoss(chunk.status()));
  EXPECT_EQ(read, body);
}

TEST(SnapshotTest, WhatIsAbandonedIsNotLeft) {
  MemoryDisk disk;
  Saver saver(&disk, kCluster, 2);
  ASSERT_TRUE(saver.Take({.meta = Meta(7), .data = Bytes::Copy("half"), .first = true}).ok());
  EXPECT_THAT(*ListUnfinished(disk), SizeIs(1));
  ASSERT_TRUE(saver.Take({.meta = Meta(7), .abandon = true}).ok());
  EXPECT_THAT(disk.Files(), ElementsAre());
}

// For every byte of the file: refused, and named.
TEST(SnapshotTest, NoFlippedByteIsEverAccepted) {
  MemoryDisk disk("/data");
  ASSERT_TRUE(Write(disk, 42, Body(3000)).ok());
  const std::string content = disk.Content(PathOf(42));
  for (size_t at = 0; at < content.size(); ++at) {
    std::string flipped = content;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    disk.SetContent(PathOf(42), flipped);
    const auto newest = OpenNewest(disk, kCluster);
    ASSERT_TRUE(newest.ok()) << newest.status() << " byte " << at;
    ASSERT_EQ(newest->reader, nullptr) << "byte " << at;
    ASSERT_EQ(newest->skipped.size(), 1u);
    ASSERT_TRUE(absl::IsDataLoss(newest->skipped[0]));
    ASSERT_THAT(std::string(newest->skipped[0].message()), HasSubstr("/data/" + PathOf(42)));
  }
}

TEST(SnapshotTest, NoCutOrGrownFileIsEverAccepted) {
  MemoryDisk disk;
  ASSERT_TRUE(Write(disk, 42, Body(3000)).ok());
  const std::string content = disk.Content(PathOf(42));
  for (size_t size = 0; size < content.size(); ++size) {
    disk.SetContent(PathOf(42), content.substr(0, size));
    ASSERT_EQ(OpenNewest(disk, kCluster)->reader, nullptr) << size;
  }
  disk.SetContent(PathOf(42), content + "x");
  EXPECT_EQ(OpenNewest(disk, kCluster)->reader, nullptr);
}

// Whole chunks swapped, doubled or left out carry right checksums of their own.
TEST(SnapshotTest, ChunksOutOfPlaceAreRefused) {
  MemoryDisk disk;
  ASSERT_TRUE(Write(disk, 42, Body(3 * kChunkBytes), kChunkBytes).ok());
  const std::string content = disk.Content(PathOf(42));
  const size_t chunk = kChunkHeadBytes + kChunkBytes;
  const size_t first = content.size() - kTrailerBytes - 3 * chunk;
  const auto at = [&](size_t i) { return content.substr(first + i * chunk, chunk); };
  const std::string head = content.substr(0, first);
  const std::string trailer = content.substr(content.size() - kTrailerBytes);
  for (const std::string& body : {at(1) + at(0) + at(2), at(0) + at(2),
                                  at(0) + at(1) + at(2) + at(2), at(0) + at(1), std::string()}) {
    disk.SetContent(PathOf(42), head + body + trailer);
    EXPECT_EQ(OpenNewest(disk, kCluster)->reader, nullptr);
  }
}

TEST(SnapshotTest, ADamagedNewestGivesWayToTheOneBefore) {
  MemoryDisk disk;
  ASSERT_TRUE(Write(disk, 10, "ten").ok());
  ASSERT_TRUE(Write(disk, 20, "twenty").ok());
  EXPECT_EQ(OpenNewest(disk, kCluster)->reader->meta().index, raft::Index(20));
  std::string content = disk.Content(PathOf(20));
  content[content.size() / 2] ^= 1;
  disk.SetContent(PathOf(20), content);
  auto newest = OpenNewest(disk, kCluster);
  ASSERT_TRUE(newest.ok());
  EXPECT_EQ(newest->reader->meta().index, raft::Index(10));
  EXPECT_EQ(*ReadAll(*newest->reader), "ten");
  EXPECT_EQ(newest->skipped.size(), 1u);
}

TEST(SnapshotTest, AnotherClustersSnapshotIsRefusedAndNotSkipped) {
  MemoryDisk disk("/data");
  ASSERT_TRUE(Write(disk, 10, "ten").ok());
  const absl::Status status = OpenNewest(disk, 0xc2).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("belongs to cluster c1"));
}

TEST(SnapshotTest, ARenamedFileIsRefused) {
  MemoryDisk disk;
  ASSERT_TRUE(Write(disk, 10, "ten").ok());
  ASSERT_TRUE(disk.Rename(PathOf(10), PathOf(11)).ok());
  EXPECT_EQ(OpenNewest(disk, kCluster)->reader, nullptr);
}

TEST(SnapshotTest, PurgeKeepsTheNewest) {
  MemoryDisk disk;
  for (uint64_t index : {3, 300, 30, 3000}) ASSERT_TRUE(Write(disk, index, "x").ok());
  ASSERT_TRUE(Purge(disk, 2).ok());
  EXPECT_THAT(*ListNewestFirst(disk), ElementsAre(NameOf(3000), NameOf(300)));
}

TEST(SaverTest, APieceOfANewSnapshotDropsTheUnfinishedOne) {
  MemoryDisk disk;
  Saver saver(&disk, kCluster, 2);
  ASSERT_TRUE(
      saver.Take({.meta = Meta(1), .data = Bytes::Copy("half"), .first = true, .last = false})
          .ok());
  const auto saved =
      saver.Take({.meta = Meta(2), .data = Bytes::Copy("whole"), .first = true, .last = true});
  ASSERT_TRUE(saved.ok());
  ASSERT_TRUE(saved->has_value());
  EXPECT_EQ((*saved)->meta, Meta(2));
  EXPECT_EQ((*saved)->bytes, 5u);
  EXPECT_THAT(disk.Files(), ElementsAre(PathOf(2)));
}

TEST(SaverTest, AnAbandonedSnapshotLeavesNothing) {
  MemoryDisk disk;
  Saver saver(&disk, kCluster, 2);
  ASSERT_TRUE(
      saver.Take({.meta = Meta(1), .data = Bytes::Copy("half"), .first = true, .last = false})
          .ok());
  const auto saved = saver.Take({.meta = Meta(1), .data = {}, .abandon = true});
  ASSERT_TRUE(saved.ok());
  EXPECT_FALSE(saved->has_value());
  EXPECT_THAT(disk.Files(), ElementsAre());
}

// Crashes at every operation, of the machine or of the process alone: afterwards the newest usable
// snapshot is the last finished one or, whole, the one under way. And what was once used stays: the
// log may have been cut behind it.
TEST(SnapshotCrashTest, AtEveryOperationAFinishedSnapshotIsThere) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    bool crashed = true;
    for (uint64_t crash_at = 1; crashed; ++crash_at) {
      SCOPED_TRACE(Concat("seed ", seed, ", crash at operation ", crash_at));
      MemoryDisk disk;
      uint64_t operations = 0;
      disk.set_hook([&](MemoryDisk::Operation operation, std::string_view) {
        if (operation == MemoryDisk::Operation::kRead) return absl::OkStatus();
        return ++operations >= crash_at ? absl::InternalError("the plug is pulled")
                                        : absl::OkStatus();
      });
      Saver saver(&disk, kCluster, 2);
      uint64_t finished = 0;
      crashed = false;
      for (uint64_t index = 1; index <= 4 && !crashed; ++index) {
        for (int piece = 0; piece < 3 && !crashed; ++piece) {
          const auto saved = saver.Take({.meta = Meta(index),
                                         .data = Bytes::Copy(Body(1500)),
                                         .first = piece == 0,
                                         .last = piece == 2});
          crashed = !saved.ok();
          if (saved.ok() && saved->has_value()) finished = index;
        }
      }
      Prng prng(seed * 1000 + crash_at);
      seed % 2 == 0 ? disk.KillProcess() : disk.Crash(prng);
      disk.set_hook(nullptr);
      auto newest = OpenNewest(disk, kCluster);
      ASSERT_TRUE(newest.ok()) << newest.status();
      const uint64_t found = newest->reader == nullptr ? 0 : newest->reader->meta().index.value();
      ASSERT_GE(found, finished);
      ASSERT_LE(found, finished + 1);
      ASSERT_TRUE(newest->skipped.empty()) << newest->skipped[0];
      if (found != 0) {
        ASSERT_EQ(*ReadAll(*newest->reader), Body(1500) + Body(1500) + Body(1500));
        disk.CrashLosingAll();
        newest = OpenNewest(disk, kCluster);
        ASSERT_TRUE(newest.ok()) << newest.status();
        ASSERT_NE(newest->reader, nullptr);
        ASSERT_EQ(newest->reader->meta().index.value(), found);
      }
    }
  }
}

}  // namespace
}  // namespace conclave::snapshot
