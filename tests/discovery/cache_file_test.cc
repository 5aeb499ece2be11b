// The set on disk: what is written comes back, and nothing else does.
#include "conclave/discovery/cache_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

namespace conclave {
namespace {

using ::testing::HasSubstr;

CacheFile::Content Sample() {
  InstanceList::Entries entries;
  entries.push_back(std::make_shared<InstanceEntry>(
      InstanceEntry{.key = "s/10.0.0.1:80",
                    .instance = {.service = "s",
                                 .id = "i-1",
                                 .address = "10.0.0.1:80",
                                 .version = "1.2",
                                 .zone = "east",
                                 .weight = -3,
                                 .tags = {"a", ""},
                                 .state = InstanceState::kDraining,
                                 .attrs = {{"k", std::string("v\0w", 3)}, {"l", ""}}}}));
  entries.push_back(std::make_shared<InstanceEntry>(
      InstanceEntry{.key = "s/\xff",
                    .instance = {.service = "s", .address = "b:1", .raw_metadata = "\"text\""}}));
  return {.service = "s",
          .revision = 42,
          .saved_at = absl::FromUnixMillis(1'700'000'000'123),
          .instances = InstanceList(std::move(entries))};
}

class CacheFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/cache_file_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string Path(std::string_view service = "s") const {
    return CacheFile::PathOf(directory_, service);
  }
  static void Store(const std::string& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  }

  std::string directory_;
};

TEST_F(CacheFileTest, WhatIsWrittenComesBack) {
  const CacheFile::Content sample = Sample();
  ASSERT_TRUE(CacheFile::Write(Path(), CacheFile::Encode(sample)).ok());
  const auto read = CacheFile::Read(Path(), "s");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->service, "s");
  EXPECT_EQ(read->revision, 42);
  EXPECT_EQ(read->saved_at, sample.saved_at);
  ASSERT_EQ(read->instances.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->instances.key(i), sample.instances.key(i));
    EXPECT_EQ(read->instances[i], sample.instances[i]);
  }
}

TEST_F(CacheFileTest, IsForThisUserOnlyAndReplacedAsAWhole) {
  const std::string nested = directory_ + "/not/yet/there";
  const std::string path = CacheFile::PathOf(nested, "s");
  ASSERT_TRUE(CacheFile::Write(path, CacheFile::Encode(Sample())).ok());
  ASSERT_TRUE(CacheFile::Write(path, CacheFile::Encode({.service = "s", .revision = 1})).ok());
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(nested.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  EXPECT_EQ(CacheFile::Read(path, "s")->revision, 1);
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(nested)) ++files;
  EXPECT_EQ(files, 1u) << "nothing temporary stays";
}

TEST_F(CacheFileTest, AnyDamagedByteAndAnyCutIsFound) {
  const std::string good = CacheFile::Encode(Sample());
  ASSERT_TRUE(CacheFile::Decode(good).ok());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_EQ(CacheFile::Decode(bad).status().code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_EQ(CacheFile::Decode(good.substr(0, i)).status().code(), absl::StatusCode::kDataLoss)
        << i;
  }
  EXPECT_FALSE(CacheFile::Decode(good + "x").ok());
}

TEST_F(CacheFileTest, ForeignFilesAreRefused) {
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kNotFound);
  Store(Path(), "some text that somebody else has put here, longer than a head");
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kDataLoss);
  Store(Path("other"), CacheFile::Encode(Sample()));
  EXPECT_THAT(std::string(CacheFile::Read(Path("other"), "other").status().message()),
              HasSubstr("another service"));
  Store(Path(), CacheFile::Encode(Sample()));
  ASSERT_EQ(chmod(Path().c_str(), 0622), 0);
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kPermissionDenied);
  std::filesystem::remove(Path());
  std::filesystem::create_symlink(Path("other"), Path());
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kPermissionDenied);
  std::filesystem::remove(Path());
  std::filesystem::create_directory(Path());
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kPermissionDenied);
  std::filesystem::remove(Path());
  ASSERT_EQ(mkfifo(Path().c_str(), 0600), 0);
  EXPECT_EQ(CacheFile::Read(Path(), "s").status().code(), absl::StatusCode::kPermissionDenied)
      << "and it does not hang";
}

TEST_F(CacheFileTest, WhatCannotBeWrittenSaysWhyAndLeavesTheOldFile) {
  const std::string bytes = CacheFile::Encode(Sample());
  ASSERT_TRUE(CacheFile::Write(Path(), bytes).ok());
  EXPECT_EQ(CacheFile::Write(Path(), std::string(CacheFile::kBytesMax + 1, 'x')).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(CacheFile::Write(CacheFile::PathOf("/proc/nowhere", "s"), bytes).ok());
  EXPECT_TRUE(CacheFile::Read(Path(), "s").ok());
}

TEST_F(CacheFileTest, EveryNameHasAFileOfItsOwn) {
  const std::string long_name(400, 'x');
  std::set<std::string> paths;
  const std::vector<std::string> names = {
      "a",   "A", "a/b",     "a%2Fb",         "..",  ".a",  "a b",          "\xff",
      "a.b", "ü", long_name, long_name + "y", "a_b", "a-b", long_name + "/"};
  for (const std::string& name : names) {
    const std::string path = CacheFile::PathOf("/d", name);
    paths.insert(path);
    const std::string file = path.substr(3);
    EXPECT_EQ(file.find('/'), std::string::npos) << file;
    EXPECT_NE(file[0], '.') << file;
    EXPECT_LE(file.size(), 200u);
  }
  EXPECT_EQ(paths.size(), names.size());
}

}  // namespace
}  // namespace conclave
