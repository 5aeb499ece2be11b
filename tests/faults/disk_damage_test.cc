// Real servers whose files are damaged while they are down: what was acknowledged is there
// afterwards, on every member, or the cluster says that it cannot serve.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/app/server_process.h"
#include "conclave/tests/faults/damaged_files.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kPuts = 20;
constexpr absl::Duration kPatience = absl::Seconds(60);

std::string KeyOf(int i) { return absl::StrCat("key-", i < 10 ? "0" : "", i); }

// Acknowledged, one after the other.
void PutAll(const std::string& endpoint, int from = 0, int to = kPuts) {
  for (int i = from; i < to; ++i) {
    ASSERT_TRUE(
        WaitFor([&] { return Put(endpoint, KeyOf(i), absl::StrCat("value ", i)); }, kPatience));
  }
}

size_t CountOn(const std::string& endpoint) {
  size_t found = 0;
  for (const auto& [key, value] : ReadAll(endpoint)) found += key.starts_with("key-") ? 1 : 0;
  return found;
}

bool Listens(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool listens = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return listens;
}

enum class Kind { kZeroedFrame, kFlippedBit };

// Of our own log only: a record's head is 8 bytes at least, and byte 60 is in its payload.
void DamageAt(FilePlace place, Kind kind) {
  if (kind == Kind::kZeroedFrame) {
    ASSERT_TRUE(ZeroBytes(place, 8));
  } else {
    place.offset += 60;
    ASSERT_TRUE(FlipBit(place, 4));
  }
}

std::vector<FilePlace> LastPuts(const std::string& data_dir) {
  return LastRecords(ServerKind::kConclave, data_dir, kPuts);
}

// Three members; one of them is down while the writes are acknowledged, then all are killed, and
// one of the two that have the writes loses one of them.
class TailDamageTest : public ::testing::TestWithParam<std::tuple<Kind, int>> {
 protected:
  void SetUp() override {
    auto cluster = TestCluster::Start(ServerUnderTest{ServerKind::kConclave, 3});
    if (absl::IsNotFound(cluster.status())) GTEST_SKIP() << cluster.status();
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    cluster_->Kill(kDown);
    PutAll(cluster_->endpoint(kIntact));
    ASSERT_FALSE(HasFailure());
    // A follower acknowledges before its neighbour has to.
    ASSERT_EQ(CountOn(cluster_->endpoint(kDamaged)), kPuts);
    cluster_->Kill(kDamaged);
    cluster_->Kill(kIntact);
    const auto [kind, which] = GetParam();
    const std::vector<FilePlace> records = LastPuts(cluster_->data_dir(kDamaged));
    ASSERT_GE(records.size(), 2u);
    DamageAt(which < 0 ? records.back() : records.at(which), kind);
  }

  std::string LogOf(int member) const { return ReadFile(cluster_->log_path(member)); }

  static constexpr int kIntact = 0;
  static constexpr int kDamaged = 1;
  static constexpr int kDown = 2;
  std::unique_ptr<TestCluster> cluster_;
};

TEST_P(TailDamageTest, NothingAcknowledgedIsLost) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cluster_->Restart(i).ok());
  const absl::Status healthy = cluster_->WaitAllHealthy(kPatience);
  ASSERT_TRUE(healthy.ok()) << healthy;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(CountOn(cluster_->endpoint(i)), kPuts) << "member " << i;
  EXPECT_THAT(LogOf(kDamaged), HasSubstr("is damaged at byte"));
  EXPECT_TRUE(WaitFor(
      [&] { return LogOf(kDamaged).find("the damaged log is whole again") != std::string::npos; }));
  bool evidence = false;
  for (const auto& file :
       std::filesystem::directory_iterator(cluster_->data_dir(kDamaged) + "/wal")) {
    evidence = evidence || file.path().extension() == ".damaged";
  }
  EXPECT_TRUE(evidence);
  // A whole member again: it starts without a word.
  cluster_->Kill(kDamaged);
  PutAll(cluster_->endpoint(kIntact), kPuts, kPuts + 1);
  ASSERT_TRUE(cluster_->Restart(kDamaged).ok());
  ASSERT_TRUE(cluster_->WaitHealthy(kDamaged, kPatience).ok());
  EXPECT_EQ(CountOn(cluster_->endpoint(kDamaged)), kPuts + 1);
}

// The one that has everything is gone: the other two are a majority, and must not act as one.
TEST_P(TailDamageTest, WithoutTheOneThatHasItAllTheOthersWait) {
  ASSERT_TRUE(cluster_->Restart(kDamaged).ok());
  ASSERT_TRUE(cluster_->Restart(kDown).ok());
  const int port = PortOf(cluster_->endpoint(kDamaged));
  ASSERT_TRUE(
      WaitFor([&] { return LogOf(kDamaged).find("waiting for a leader") != std::string::npos; },
              kPatience));
  ASSERT_TRUE(WaitFor([&] { return Listens(port); }, kPatience));
  ASSERT_TRUE(
      WaitFor([&] { return Get(port, "/health").find("DAMAGED AND WAITS") != std::string::npos; },
              kPatience));
  EXPECT_THAT(Get(port, "/metrics"), HasSubstr("conclave_log_awaits_repair 1"));
  EXPECT_FALSE(cluster_->WaitHealthy(kDown, absl::Seconds(3)).ok());
  EXPECT_FALSE(Put(cluster_->endpoint(kDown), "other", "value"));
  ASSERT_TRUE(cluster_->Restart(kIntact).ok());
  const absl::Status healthy = cluster_->WaitAllHealthy(kPatience);
  ASSERT_TRUE(healthy.ok()) << healthy;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(CountOn(cluster_->endpoint(i)), kPuts) << "member " << i;
  EXPECT_THAT(Get(port, "/metrics"), HasSubstr("conclave_log_awaits_repair 0"));
}

INSTANTIATE_TEST_SUITE_P(Damages, TailDamageTest,
                         ::testing::Combine(::testing::Values(Kind::kZeroedFrame,
                                                              Kind::kFlippedBit),
                                            ::testing::Values(0, -1)),
                         [](const auto& info) {
                           return absl::StrCat(
                               std::get<0>(info.param) == Kind::kZeroedFrame ? "ZeroedFrame"
                                                                             : "FlippedBit",
                               std::get<1>(info.param) == 0 ? "OfTheFirst" : "OfTheLast");
                         });

// The damaged one remembers how far its log went, so it can elect the one that has all of it.
TEST(DiskDamageTest, TwoMembersRepairEachOtherWithoutTheThird) {
  CONCLAVE_START_CLUSTER(cluster, ServerUnderTest{ServerKind::kConclave, 3});
  cluster->Kill(2);
  PutAll(cluster->endpoint(0));
  ASSERT_EQ(CountOn(cluster->endpoint(1)), kPuts);
  cluster->Kill(0);
  cluster->Kill(1);
  DamageAt(LastPuts(cluster->data_dir(1)).front(), Kind::kZeroedFrame);
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->Restart(1).ok());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(cluster->WaitHealthy(i, kPatience).ok());
    EXPECT_EQ(CountOn(cluster->endpoint(i)), kPuts) << "member " << i;
  }
}

// All of its snapshots, one bit each: refused by their checksums, and the state comes from others.
TEST(DiskDamageTest, ALostStateIsFilledAgainByTheOthers) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  auto started = TestCluster::Start(
      {.kind = ServerKind::kConclave, .members = 3, .extra_flags = {"--snapshot-count=10"}});
  ASSERT_TRUE(started.ok()) << started.status();
  const std::unique_ptr<TestCluster> cluster = *std::move(started);
  PutAll(cluster->endpoint(0));
  const std::string directory = cluster->data_dir(1) + "/snapshot";
  cluster->Kill(1);
  int damaged = 0;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    ASSERT_TRUE(FlipBit({file.path(), file.file_size() / 2}, 2));
    ++damaged;
  }
  ASSERT_GE(damaged, 1);
  ASSERT_TRUE(cluster->Restart(1).ok());
  const absl::Status healthy = cluster->WaitHealthy(1, kPatience);
  ASSERT_TRUE(healthy.ok()) << healthy;
  EXPECT_EQ(CountOn(cluster->endpoint(1)), kPuts);
  EXPECT_THAT(ReadFile(cluster->log_path(1)), HasSubstr("checksum"));
  // And it is a voter like before.
  cluster->Kill(2);
  PutAll(cluster->endpoint(1), kPuts, kPuts + 1);
  EXPECT_EQ(CountOn(cluster->endpoint(0)), kPuts + 1);
}

TEST(DiskDamageTest, AMemberAloneRefusesAndSaysWhatToDo) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  const TemporaryDirectory directory;
  SingleServer server(directory.path("data"));
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  PutAll(server.endpoint());
  server.process_->Signal(SIGKILL);
  ASSERT_TRUE(server.process_->Wait().ok());
  const FilePlace place = LastPuts(directory.path("data")).at(kPuts / 2);
  DamageAt(place, Kind::kFlippedBit);
  const std::string before = ReadFile(place.file);
  const Outcome refused = RunToEnd({server.flags_.begin() + 1, server.flags_.end()});
  EXPECT_NE(refused.code, 0);
  EXPECT_THAT(refused.output, HasSubstr("This member is the only one"));
  EXPECT_THAT(refused.output, HasSubstr("--force-new-cluster"));
  EXPECT_EQ(ReadFile(place.file), before);
  // On request it goes on with what is left.
  server.flags_.push_back("--force-new-cluster");
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  EXPECT_EQ(CountOn(server.endpoint()), kPuts / 2);
}

}  // namespace
}  // namespace conclave::testing
