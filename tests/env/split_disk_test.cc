// One tree on two disks.
#include "conclave/server/env/split_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conclave/server/env/memory/memory_disk.h"

namespace conclave::env {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SplitDiskTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, std::string_view text) {
    auto file = disk_.Open(path, OpenMode::kCreate);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Write(0, text).ok());
    ASSERT_TRUE((*file)->Sync().ok());
  }

  std::shared_ptr<MemoryDisk> first_ = std::make_shared<MemoryDisk>();
  std::shared_ptr<MemoryDisk> second_ = std::make_shared<MemoryDisk>();
  SplitDisk disk_{first_, "wal", second_};
};

TEST_F(SplitDiskTest, TheDirectoryLiesOnTheSecondDisk) {
  ASSERT_TRUE(disk_.CreateDirectory("wal").ok());
  Write("wal/1", "log");
  Write("wall", "not the log");
  Write("identity", "who");
  ASSERT_TRUE(disk_.SyncDirectory("wal").ok());
  ASSERT_TRUE(disk_.SyncDirectory("").ok());
  EXPECT_THAT(second_->Files(), ElementsAre("1"));
  EXPECT_THAT(first_->Files(), ElementsAre("identity", "wall"));
  EXPECT_THAT(*disk_.List("wal"), ElementsAre("1"));
  EXPECT_THAT(*disk_.List(""), ElementsAre("identity", "wal", "wall"));
}

TEST_F(SplitDiskTest, TheDirectoryIsThereWhenItIsCreatedOrHasFiles) {
  EXPECT_TRUE(absl::IsNotFound(disk_.List("wal").status()));
  EXPECT_THAT(*disk_.List(""), IsEmpty());
  ASSERT_TRUE(disk_.CreateDirectory("wal").ok());
  EXPECT_THAT(*disk_.List("wal"), IsEmpty());
  Write("wal/1", "log");
  SplitDisk again(first_, "wal", second_);
  EXPECT_THAT(*again.List(""), ElementsAre("wal"));
}

TEST_F(SplitDiskTest, TheLockOfTheSecondRootIsNotPartOfTheTree) {
  const auto lock = second_->LockFile("lock");
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_TRUE(absl::IsNotFound(disk_.List("wal").status()));
}

TEST_F(SplitDiskTest, RenamesAndRemovesStayOnTheirDisk) {
  ASSERT_TRUE(disk_.CreateDirectory("wal").ok());
  Write("wal/1", "log");
  ASSERT_TRUE(disk_.Rename("wal/1", "wal/2").ok());
  EXPECT_THAT(*disk_.List("wal"), ElementsAre("2"));
  ASSERT_TRUE(disk_.Remove("wal/2").ok());
  EXPECT_THAT(*disk_.List("wal"), IsEmpty());
  EXPECT_DEATH(static_cast<void>(disk_.Rename("wal/1", "1")), "from one disk to the other");
}

TEST_F(SplitDiskTest, MessagesNameBoth) { EXPECT_THAT(disk_.Describe(), HasSubstr("wal at")); }

}  // namespace
}  // namespace conclave::env
