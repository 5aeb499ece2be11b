// env::Disk on a real directory.
#include "conclave/server/posix/disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conclave/server/wal/log.h"
#include "conclave/tests/posix/temporary_directory.h"

namespace conclave::posix {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

mode_t ModeOf(const std::string& path) {
  struct stat info;
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

std::string ReadAll(env::File& file) {
  std::string bytes(*file.Size(), '\0');
  EXPECT_EQ(*file.Read(0, bytes), bytes.size());
  return bytes;
}

class PosixDiskTest : public ::testing::Test {
 protected:
  TemporaryDirectory directory_;
  std::unique_ptr<env::Disk> disk_ = *OpenDisk(directory_ / "data");
};

TEST_F(PosixDiskTest, DirectoriesAndFilesAreForTheirOwnerOnly) {
  ASSERT_TRUE(disk_->CreateDirectory("wal").ok());
  ASSERT_TRUE(disk_->CreateDirectory("wal").ok());
  ASSERT_TRUE(disk_->Open("wal/file", env::OpenMode::kCreate).ok());
  EXPECT_EQ(ModeOf(directory_ / "data"), 0700u);
  EXPECT_EQ(ModeOf(directory_ / "data/wal"), 0700u);
  EXPECT_EQ(ModeOf(directory_ / "data/wal/file"), 0600u);
}

TEST_F(PosixDiskTest, AnOpenDirectoryIsRefused) {
  ASSERT_EQ(chmod((directory_ / "data").c_str(), 0755), 0);
  const absl::Status status = OpenDisk(directory_ / "data").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has mode 0755"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("chmod 700"));
}

TEST_F(PosixDiskTest, AFileInPlaceOfTheDirectoryIsRefused) {
  ASSERT_TRUE(disk_->Open("file", env::OpenMode::kCreate).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenDisk(directory_ / "data/file").status()));
  EXPECT_TRUE(absl::IsNotFound(OpenDisk(directory_ / "no/such").status()));
}

TEST_F(PosixDiskTest, OpenModesDoWhatTheySay) {
  EXPECT_TRUE(absl::IsNotFound(disk_->Open("a", env::OpenMode::kRead).status()));
  EXPECT_TRUE(absl::IsNotFound(disk_->Open("a", env::OpenMode::kReadWrite).status()));
  ASSERT_TRUE((*disk_->Open("a", env::OpenMode::kCreate))->Write(0, "abc").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(disk_->Open("a", env::OpenMode::kCreate).status()));
  EXPECT_EQ(ReadAll(**disk_->Open("a", env::OpenMode::kReadWrite)), "abc");
  EXPECT_EQ(ReadAll(**disk_->Open("a", env::OpenMode::kCreateOrReset)), "");
}

TEST_F(PosixDiskTest, AGatheredWriteOfManyPiecesIsWhole) {
  auto file = *disk_->Open("a", env::OpenMode::kCreate);
  std::vector<std::string> texts;
  std::vector<std::string_view> pieces;
  std::string expected;
  for (int i = 0; i < 5000; ++i) texts.push_back(std::string(static_cast<size_t>(i % 40), 'x'));
  for (const std::string& text : texts) {
    pieces.push_back(text);
    expected += text;
  }
  ASSERT_TRUE(file->Write(100, pieces).ok());
  ASSERT_TRUE(file->Sync().ok());
  EXPECT_EQ(ReadAll(*file), std::string(100, '\0') + expected);
}

TEST_F(PosixDiskTest, AReadStopsAtTheEnd) {
  auto file = *disk_->Open("a", env::OpenMode::kCreate);
  ASSERT_TRUE(file->Write(0, "abcdef").ok());
  std::string out(10, '\0');
  EXPECT_EQ(*file->Read(4, out), 2u);
  EXPECT_EQ(*file->Read(6, out), 0u);
  EXPECT_EQ(*file->Read(60, out), 0u);
}

TEST_F(PosixDiskTest, PreallocationOccupiesTheDisk) {
  auto file = *disk_->Open("a", env::OpenMode::kCreate);
  ASSERT_TRUE(file->Preallocate(0, 3 << 20).ok());
  ASSERT_TRUE(file->Sync().ok());
  EXPECT_EQ(*file->Size(), uint64_t{3} << 20);
  struct stat info;
  ASSERT_EQ(stat((directory_ / "data/a").c_str(), &info), 0);
  EXPECT_GE(info.st_blocks * 512, 3 << 20);
  ASSERT_TRUE(file->Truncate(10).ok());
  EXPECT_EQ(ReadAll(*file), std::string(10, '\0'));
}

TEST_F(PosixDiskTest, NamesAreListedRenamedAndRemoved) {
  ASSERT_TRUE(disk_->CreateDirectory("d").ok());
  for (const char* name : {"d/c", "d/a", "d/b"}) {
    ASSERT_TRUE(disk_->Open(name, env::OpenMode::kCreate).ok());
  }
  EXPECT_THAT(*disk_->List("d"), ElementsAre("a", "b", "c"));
  ASSERT_TRUE(disk_->Rename("d/a", "d/c").ok());
  ASSERT_TRUE(disk_->SyncDirectory("d").ok());
  EXPECT_THAT(*disk_->List("d"), ElementsAre("b", "c"));
  ASSERT_TRUE(disk_->Remove("d/b").ok());
  EXPECT_TRUE(absl::IsNotFound(disk_->Remove("d/b")));
  EXPECT_THAT(*disk_->List("d"), ElementsAre("c"));
  EXPECT_TRUE(absl::IsNotFound(disk_->List("e").status()));
}

TEST_F(PosixDiskTest, FreeSpaceIsThatOfTheFileSystem) {
  const auto space = disk_->FreeSpace();
  ASSERT_TRUE(space.ok());
  EXPECT_GT(space->total_bytes, space->free_bytes);
}

TEST_F(PosixDiskTest, ASecondUserOfTheDirectoryIsRefused) {
  auto lock = LockDataDirectory(*disk_);
  ASSERT_TRUE(lock.ok());
  const auto other_disk = *OpenDisk(directory_ / "data");
  const absl::Status status = LockDataDirectory(*other_disk).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(),
            "data directory " + (directory_ / "data") + " is in use by another process");
  lock->reset();
  EXPECT_TRUE(LockDataDirectory(*other_disk).ok());
}

TEST_F(PosixDiskTest, TheLockEndsWithItsProcess) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto lock = LockDataDirectory(*disk_);
    const char answer = lock.ok() ? 'y' : 'n';
    const bool told = write(pipes[1], &answer, 1) == 1;
    while (told) pause();
    _exit(1);
  }
  char answer = 0;
  ASSERT_EQ(read(pipes[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  EXPECT_FALSE(LockDataDirectory(*disk_).ok());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(LockDataDirectory(*disk_).ok());
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(PosixDiskTest, ALogLivesOnARealDirectory) {
  const wal::Options options{
      .cluster_id = 1, .member_id = raft::NodeId(2), .segment_bytes = 64 << 10};
  std::vector<raft::Entry> entries;
  for (uint64_t i = 1; i <= 500; ++i) {
    entries.push_back({.term = raft::Term(1),
                       .index = raft::Index(i),
                       .payload = Bytes::Copy(std::string(300, 'x'))});
  }
  {
    auto recovered = wal::Log::Recover(*disk_, options, {});
    ASSERT_TRUE(recovered.ok()) << recovered.status();
    for (const raft::Entry& entry : entries) {
      ASSERT_TRUE(
          recovered->log->Append({.reset = {}, .hard_state = {}, .entries = {&entry, 1}}).ok());
      ASSERT_TRUE(recovered->log->Sync().ok());
    }
    ASSERT_TRUE(recovered->log->TruncatePrefix(raft::Index(300)).ok());
  }
  const auto recovered =
      wal::Log::Recover(*disk_, options, {.index = raft::Index(300), .term = raft::Term(1)});
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->entries, std::vector(entries.begin() + 300, entries.end()));
}

}  // namespace
}  // namespace conclave::posix
