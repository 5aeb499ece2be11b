// A real server whose state is not that of the others, though all of its files are whole: it is
// found within seconds, put out of the way, and has the others' state afterwards.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/app/server_process.h"
#include "conclave/tests/faults/spoiled_state.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);
size_t Alarms(const std::string& endpoint) {
  auto stub = etcdserverpb::Maintenance::NewStub(
      grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  etcdserverpb::AlarmRequest request;
  etcdserverpb::AlarmResponse response;
  if (!stub->Alarm(&context, request, &response).ok()) return 0;
  size_t corrupt = 0;
  for (const auto& alarm : response.alarms()) {
    corrupt += alarm.alarm() == etcdserverpb::CORRUPT ? 1 : 0;
  }
  return corrupt;
}

TEST(DivergenceTest, AMemberWithAnotherStateIsFoundAndGetsTheOthers) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  auto started = TestCluster::Start(
      {.kind = ServerKind::kConclave, .members = 3, .extra_flags = {"--snapshot-count=10"}});
  ASSERT_TRUE(started.ok()) << started.status();
  const std::unique_ptr<TestCluster> cluster = *std::move(started);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(WaitFor([&] { return Put(cluster->endpoint(0), absl::StrCat("key-", i), "value"); },
                        kPatience));
  }
  cluster->Kill(1);
  const absl::Status spoiled = SpoilState(cluster->data_dir(1));
  ASSERT_TRUE(spoiled.ok()) << spoiled;
  ASSERT_TRUE(cluster->Restart(1).ok());
  const auto log = [&] { return ReadFile(cluster->log_path(1)); };
  EXPECT_TRUE(WaitFor([&] { return Alarms(cluster->endpoint(0)) == 1; }, kPatience)) << log();
  EXPECT_TRUE(WaitFor(
      [&] { return log().find("the member starts again without its data") != std::string::npos; },
      kPatience));
  EXPECT_THAT(log(), HasSubstr("this member's data is not that of the majority"));
  ASSERT_TRUE(cluster->WaitHealthy(1, kPatience).ok()) << log();
  EXPECT_TRUE(WaitFor([&] { return Alarms(cluster->endpoint(0)) == 0; }, kPatience)) << log();
  const auto others = ReadAll(cluster->endpoint(0));
  EXPECT_EQ(others.size(), 30u);
  EXPECT_EQ(ReadAll(cluster->endpoint(1)), others);
  bool evidence = false;
  for (const auto& file : std::filesystem::directory_iterator(cluster->data_dir(1) + "/snapshot")) {
    evidence = evidence || file.path().extension() == ".diverged";
  }
  EXPECT_TRUE(evidence);
  // And it counts again.
  cluster->Kill(2);
  EXPECT_TRUE(WaitFor([&] { return Put(cluster->endpoint(1), "after", "value"); }, kPatience));
}

}  // namespace
}  // namespace conclave::testing
