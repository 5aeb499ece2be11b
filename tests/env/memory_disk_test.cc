// The disk in memory forgets what a real one may forget, and nothing else.
#include "conclave/server/env/memory/memory_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace conclave::env {
namespace {

using ::testing::ElementsAre;

TEST(MemoryDiskTest, WhatWasSyncedSurvivesAnyCrash) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    MemoryDisk disk;
    auto file = *disk.Open("a", env::OpenMode::kCreate);
    ASSERT_TRUE(file->Write(0, "synced").ok());
    ASSERT_TRUE(file->Sync().ok());
    ASSERT_TRUE(disk.SyncDirectory("").ok());
    ASSERT_TRUE(file->Write(6, " and not").ok());
    Prng prng(seed);
    disk.Crash(prng);
    EXPECT_EQ(disk.Content("a").substr(0, 6), "synced");
    EXPECT_FALSE(file->Write(0, "x").ok()) << "opened before the crash";
  }
}

TEST(MemoryDiskTest, UnsyncedSectorsAreKeptLostOrOlderEachByItself) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    MemoryDisk disk;
    disk.SetContent("a", std::string(1024, '0'));
    auto file = *disk.Open("a", env::OpenMode::kReadWrite);
    ASSERT_TRUE(file->Write(0, std::string(1024, '1')).ok());
    ASSERT_TRUE(file->Write(0, std::string(1024, '2')).ok());
    Prng prng(seed);
    disk.Crash(prng);
    const std::string content = disk.Content("a");
    ASSERT_EQ(content.size(), 1024u);
    ASSERT_EQ(content.substr(0, 512), std::string(512, content[0]));
    ASSERT_EQ(content.substr(512), std::string(512, content[1023]));
    outcomes.insert({content[0], content[1023]});
  }
  EXPECT_EQ(outcomes.size(), 9u);
}

TEST(MemoryDiskTest, ATornWriteHasItsFirstGranulesAndWhatWasWrittenBeforeIsThere) {
  for (const uint64_t granule : {512u, 4096u}) {
    std::set<size_t> lengths;
    for (uint64_t seed = 0; seed < 100; ++seed) {
      MemoryDisk disk;
      disk.SetContent("a", std::string(16384, '0'));
      auto file = *disk.Open("a", env::OpenMode::kReadWrite);
      ASSERT_TRUE(file->Write(0, std::string(100, '1')).ok());
      ASSERT_TRUE(file->Write(100, std::string(10'000, '2')).ok());
      ASSERT_TRUE((*disk.Open("b", env::OpenMode::kCreate))->Write(0, "x").ok());
      Prng prng(seed);
      disk.CrashTearing(granule, prng);
      const std::string content = disk.Content("a");
      ASSERT_EQ(content.size(), 16384u);
      ASSERT_EQ(content.substr(0, 100), std::string(100, '1'));
      const size_t torn = content.find('0');
      ASSERT_TRUE(torn == 100 || torn % granule == 0) << torn;
      ASSERT_LT(torn, 10'100u);
      ASSERT_EQ(content.find_first_not_of('0', torn), std::string::npos);
      ASSERT_TRUE(disk.Exists("b"));
      lengths.insert(torn);
    }
    EXPECT_EQ(lengths.size(), 10'100 / granule + 1);
  }
}

TEST(MemoryDiskTest, ReorderedWritesLackTheFirstSector) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    MemoryDisk disk;
    disk.SetContent("a", std::string(2048, '0'));
    auto file = *disk.Open("a", env::OpenMode::kReadWrite);
    ASSERT_TRUE(file->Write(512, std::string(1536, '1')).ok());
    Prng prng(seed);
    disk.CrashReordering(prng);
    const std::string content = disk.Content("a");
    ASSERT_EQ(content.size(), 2048u);
    ASSERT_EQ(content.substr(0, 1024), std::string(1024, '0'));
    outcomes.insert({content[1024], content[1536]});
  }
  EXPECT_EQ(outcomes.size(), 4u);
}

TEST(MemoryDiskTest, NamesNeedASyncOfTheirDirectory) {
  MemoryDisk disk;
  ASSERT_TRUE((*disk.Open("a", env::OpenMode::kCreate))->Sync().ok());
  ASSERT_TRUE(disk.SyncDirectory("").ok());
  ASSERT_TRUE(disk.Rename("a", "b").ok());
  ASSERT_TRUE(disk.Open("c", env::OpenMode::kCreate).ok());
  EXPECT_THAT(disk.Files(), ElementsAre("b", "c"));
  disk.CrashLosingAll();
  EXPECT_THAT(disk.Files(), ElementsAre("a"));
}

TEST(MemoryDiskTest, ANewDirectoryIsLostWithAllInIt) {
  MemoryDisk disk;
  ASSERT_TRUE(disk.CreateDirectory("d").ok());
  ASSERT_TRUE(disk.Open("d/a", env::OpenMode::kCreate).ok());
  ASSERT_TRUE(disk.SyncDirectory("d").ok());
  disk.CrashLosingAll();
  EXPECT_TRUE(absl::IsNotFound(disk.List("d").status()));
}

TEST(MemoryDiskTest, AKilledProcessLosesNothingButItsLocks) {
  MemoryDisk disk;
  auto lock = disk.LockFile("lock");
  ASSERT_TRUE(lock.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(disk.LockFile("lock").status()));
  ASSERT_TRUE((*disk.Open("a", env::OpenMode::kCreate))->Write(0, "text").ok());
  disk.KillProcess();
  EXPECT_EQ(disk.Content("a"), "text");
  EXPECT_TRUE(disk.LockFile("lock").ok());
}

TEST(MemoryDiskTest, AFailedSyncLeavesWhatReadsShowButTheDiskLacks) {
  MemoryDisk disk;
  auto file = *disk.Open("a", env::OpenMode::kCreate);
  ASSERT_TRUE(disk.SyncDirectory("").ok());
  ASSERT_TRUE(file->Write(0, "text").ok());
  disk.set_hook([](MemoryDisk::Operation operation, std::string_view) {
    return operation == MemoryDisk::Operation::kSync ? absl::InternalError("EIO")
                                                     : absl::OkStatus();
  });
  EXPECT_FALSE(file->Sync().ok());
  disk.set_hook(nullptr);
  EXPECT_TRUE(file->Sync().ok());
  EXPECT_EQ(disk.Content("a"), "text");
  disk.CrashLosingAll();
  EXPECT_EQ(disk.Content("a"), "");
}

TEST(MemoryDiskTest, OverwrittenBytesAreThereAfterACrashAndUnsyncedOnesAreStillUnsynced) {
  MemoryDisk disk;
  auto file = *disk.Open("a", env::OpenMode::kCreate);
  ASSERT_TRUE(disk.SyncDirectory("").ok());
  ASSERT_TRUE(file->Write(0, "durable").ok());
  ASSERT_TRUE(file->Sync().ok());
  ASSERT_TRUE(file->Write(7, " unsynced").ok());
  disk.Overwrite("a", 1, "xx");
  EXPECT_EQ(disk.Content("a"), "dxxable unsynced");
  disk.CrashLosingAll();
  EXPECT_EQ(disk.Content("a"), "dxxable");
}

TEST(MemoryDiskTest, AFullDiskRefusesToGrow) {
  MemoryDisk disk;
  disk.set_capacity_bytes(10);
  auto file = *disk.Open("a", env::OpenMode::kCreate);
  ASSERT_TRUE(file->Write(0, "0123456789").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(file->Write(10, "x")));
  EXPECT_TRUE(file->Write(0, "overwritten").code() == absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(file->Write(5, "ok").ok());
}

TEST(MemoryDiskTest, ASeedReproducesACrash) {
  const auto crash = [](uint64_t seed) {
    MemoryDisk disk;
    auto file = *disk.Open("a", env::OpenMode::kCreate);
    static_cast<void>(disk.SyncDirectory(""));
    for (uint64_t i = 0; i < 50; ++i) {
      static_cast<void>(file->Write(i * 300, std::string(400, static_cast<char>('a' + i % 26))));
    }
    Prng prng(seed);
    disk.Crash(prng);
    return disk.Content("a");
  };
  for (uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(crash(seed), crash(seed));
}

}  // namespace
}  // namespace conclave::env
