// A real member reads its own files again while it runs: damage is found on the day it happens,
// told to the operator, and mended of what is whole in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/tests/app/server_process.h"
#include "conclave/tests/faults/damaged_files.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int kKeys = 60;

std::string KeyOf(int i) { return absl::StrCat("key-", i); }
std::string ValueOf(int i) { return std::string(2000, static_cast<char>('a' + i % 26)); }

// A counter of the member's own page of metrics; -1: it is not there.
double Counter(const TestCluster& cluster, int member, const std::string& name) {
  const std::string endpoint = cluster.endpoint(member);
  const std::string page = Get(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)), "/metrics");
  const std::string line = absl::StrCat("\n", name, " ");
  const size_t at = page.find(line);
  double value = -1;
  if (at == std::string::npos) return value;
  const size_t begin = at + line.size();
  return absl::SimpleAtod(page.substr(begin, page.find('\n', begin) - begin), &value) ? value : -1;
}

std::vector<std::string> Files(const std::string& directory, const std::string& extension) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory, error)) {
    if (file.path().extension() == extension) files.push_back(file.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class FileCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
      GTEST_SKIP() << binary.status();
    }
    auto started = TestCluster::Start({.kind = ServerKind::kConclave,
                                       .members = 3,
                                       .extra_flags = {"--conclave-file-check-interval=500ms",
                                                       "--conclave-snapshot-log-bytes=40000",
                                                       "--conclave-log-segment-bytes=16384"}});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    for (int i = 0; i < kKeys; ++i) PutOne(i);
    // Nothing is wrong with any of it.
    const double checks = Counter(*cluster_, kDamaged, "conclave_file_checks_total");
    ASSERT_TRUE(WaitFor(
        [&] { return Counter(*cluster_, kDamaged, "conclave_file_checks_total") >= checks + 2; },
        kPatience));
    ASSERT_EQ(Damaged(), 0);
  }

  void PutOne(int i) {
    ASSERT_TRUE(
        WaitFor([&] { return Put(cluster_->endpoint(kOther), KeyOf(i), ValueOf(i)); }, kPatience));
  }
  double Damaged() const { return Counter(*cluster_, kDamaged, "conclave_files_damaged_total"); }
  std::string Log() const { return ReadFile(cluster_->log_path(kDamaged)); }
  std::string Directory(const std::string& name) const {
    return absl::StrCat(cluster_->data_dir(kDamaged), "/", name);
  }

  // What is damaged is found, and gone when there was something to write; then a start that needs
  // all of the files finds them whole.
  void ExpectFoundAndMended(const std::string& file) {
    ASSERT_TRUE(WaitFor([&] { return Damaged() >= 1; }, kPatience)) << Log();
    EXPECT_THAT(Log(), HasSubstr("found a damaged file; new snapshots are taken in its place"));
    EXPECT_THAT(Log(), HasSubstr(std::filesystem::path(file).filename().string()));
    int more = kKeys;
    EXPECT_TRUE(WaitFor(
        [&] {
          PutOne(more++);
          return !std::filesystem::exists(file);
        },
        kPatience));
    cluster_->Kill(kDamaged);
    const size_t before = Log().size();
    ASSERT_TRUE(cluster_->Restart(kDamaged).ok());
    ASSERT_TRUE(cluster_->WaitHealthy(kDamaged, kPatience).ok());
    EXPECT_THAT(Log().substr(before), Not(HasSubstr("is damaged")));
    EXPECT_EQ(ReadAll(cluster_->endpoint(kDamaged)), ReadAll(cluster_->endpoint(kOther)));
    EXPECT_EQ(ReadAll(cluster_->endpoint(kDamaged)).size(), static_cast<size_t>(more));
  }

  static constexpr int kDamaged = 0;
  static constexpr int kOther = 1;
  std::unique_ptr<TestCluster> cluster_;
};

TEST_F(FileCheckTest, ABitOfASnapshot) {
  const auto snapshots = Files(Directory("snapshot"), ".snapshot");
  ASSERT_FALSE(snapshots.empty());
  ASSERT_TRUE(FlipBit({snapshots.back(), std::filesystem::file_size(snapshots.back()) / 2}, 3));
  ExpectFoundAndMended(snapshots.back());
}

TEST_F(FileCheckTest, ARecordOfTheLog) {
  const auto segments = Files(Directory("wal"), ".log");
  ASSERT_GE(segments.size(), 2u);
  const std::string& sealed = segments[segments.size() - 2];
  ASSERT_TRUE(FlipBit({sealed, 4096 + 300}, 5));
  ExpectFoundAndMended(sealed);
}

}  // namespace
}  // namespace conclave::testing
