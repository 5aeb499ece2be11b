// Files that are read again: whatever byte has changed, it is found; whatever is whole, or gone, is
// no damage.
#include "conclave/server/posix/file_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "conclave/base/concat.h"
#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/server/wal/check.h"
#include "conclave/tests/wal/log_model.h"

namespace conclave::posix {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCluster = 0xc1;

class FileCheckTest : public testing::Test {
 protected:
  // Two snapshots, of several chunks each, and a log of several segments.
  void SetUp() override {
    for (const uint64_t index : {100, 200}) {
      auto writer = snapshot::Writer::Create(
          disk_, {.cluster_id = kCluster, .meta = {raft::Index(index), raft::Term(3), {}}});
      ASSERT_TRUE(writer.ok()) << writer.status();
      ASSERT_TRUE((*writer)->Append(std::string(600'000, 's')).ok());
      ASSERT_TRUE((*writer)->Finish().ok());
    }
    log_ = std::move(wal::Open(disk_).log);
    for (const raft::Entry& entry : wal::MakeEntries(1, 200, 3, 300)) {
      wal::AppendAndSync(*log_, wal::Batch({&entry, 1}));
    }
    ASSERT_GT(log_->segment_count(), 4u);
  }

  std::vector<std::string> Check() {
    FileCheck check(&disk_, kCluster);
    std::vector<std::string> damage;
    for (int i = 0; i < 1000; ++i) {
      const FileCheck::Outcome outcome = check.Next();
      if (!outcome.damage.empty()) damage.push_back(outcome.damage);
      if (outcome.done) return damage;
    }
    ADD_FAILURE() << "it comes to no end";
    return damage;
  }

  void Flip(const std::string& path, uint64_t offset) {
    auto file = disk_.Open(path, env::OpenMode::kReadWrite);
    ASSERT_TRUE(file.ok()) << file.status();
    char byte = 0;
    ASSERT_EQ(*(*file)->Read(offset, {&byte, 1}), 1u);
    byte = static_cast<char>(byte ^ 4);
    ASSERT_TRUE((*file)->Write(offset, std::string_view(&byte, 1)).ok());
  }

  env::MemoryDisk disk_;
  std::unique_ptr<wal::Log> log_;
};

TEST_F(FileCheckTest, WholeFilesAreNoDamage) {
  EXPECT_THAT(Check(), testing::IsEmpty());
  ASSERT_TRUE(log_->TruncatePrefix(raft::Index(100)).ok());
  EXPECT_THAT(Check(), testing::IsEmpty());
}

TEST_F(FileCheckTest, NothingIsNoDamage) {
  env::MemoryDisk empty;
  EXPECT_TRUE(FileCheck(&empty, kCluster).Next().done);
}

TEST_F(FileCheckTest, AByteOfASnapshotIsFound) {
  const auto names = snapshot::ListNewestFirst(disk_);
  ASSERT_TRUE(names.ok());
  for (const std::string& name : *names) {
    const std::string path = Concat(snapshot::kDirectory, "/", name);
    Flip(path, 300'000);
    const auto damage = Check();
    ASSERT_EQ(damage.size(), 1u);
    EXPECT_THAT(damage[0], HasSubstr(name));
    Flip(path, 300'000);
  }
}

// But for what stands between records, which nobody reads: zeros.
TEST_F(FileCheckTest, AnyByteOfASealedSegmentIsFound) {
  const auto names = wal::ListSegments(disk_);
  ASSERT_TRUE(names.ok());
  const std::string path = Concat(wal::kDirectory, "/", (*names)[1]);
  Prng prng(1);
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = prng.Below(6000);
    char byte = 0;
    ASSERT_EQ(*(*disk_.Open(path, env::OpenMode::kRead))->Read(offset, {&byte, 1}), 1u);
    if (byte == 0) continue;
    Flip(path, offset);
    const auto damage = Check();
    EXPECT_GE(damage.size(), 1u) << offset;
    Flip(path, offset);
  }
  EXPECT_THAT(Check(), testing::IsEmpty());
}

// What is taken away while the others are being read.
TEST_F(FileCheckTest, WhatGoesAwayMeanwhileIsNoDamage) {
  FileCheck check(&disk_, kCluster);
  EXPECT_TRUE(check.Next().damage.empty());
  ASSERT_TRUE(log_->TruncatePrefix(raft::Index(150)).ok());
  ASSERT_TRUE(snapshot::Purge(disk_, 1).ok());
  for (const raft::Entry& entry : wal::MakeEntries(201, 300, 3, 300)) {
    wal::AppendAndSync(*log_, wal::Batch({&entry, 1}));
  }
  for (FileCheck::Outcome outcome; !outcome.done;) {
    outcome = check.Next();
    EXPECT_EQ(outcome.damage, "");
  }
}

}  // namespace
}  // namespace conclave::posix
