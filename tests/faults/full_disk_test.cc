// A real server on a small disk that fills up: it stays, reads and frees, and goes on by itself.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/app/server_process.h"
#include "conclave/tests/faults/small_disk.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(90);
constexpr int kValueBytes = 64 << 10;
constexpr int kPutsMax = 4000;  // 250 MB
constexpr char kNoSpaceText[] = "etcdserver: mvcc: database space exceeded";

class Kv {
 public:
  explicit Kv(const std::string& endpoint)
      : channel_(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials())),
        kv_(etcdserverpb::KV::NewStub(channel_)),
        maintenance_(etcdserverpb::Maintenance::NewStub(channel_)) {}

  grpc::Status Put(const std::string& key, const std::string& value) {
    const auto context = Context();
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    etcdserverpb::PutResponse response;
    return kv_->Put(context.get(), request, &response);
  }
  // The number of keys; -1: an error.
  int64_t Count() {
    const auto context = Context();
    etcdserverpb::RangeRequest request;
    request.set_key("big-");
    request.set_range_end("big.");
    request.set_count_only(true);
    etcdserverpb::RangeResponse response;
    return kv_->Range(context.get(), request, &response).ok() ? response.count() : -1;
  }
  bool DeleteAllAndCompact() {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key("big-");
    request.set_range_end("big.");
    etcdserverpb::DeleteRangeResponse response;
    if (!kv_->DeleteRange(Context().get(), request, &response).ok()) return false;
    etcdserverpb::CompactionRequest compact;
    compact.set_revision(response.header().revision());
    etcdserverpb::CompactionResponse compacted;
    return kv_->Compact(Context().get(), compact, &compacted).ok();
  }
  bool HasAlarm() {
    const auto context = Context();
    etcdserverpb::AlarmRequest request;
    etcdserverpb::AlarmResponse response;
    return maintenance_->Alarm(context.get(), request, &response).ok() &&
           response.alarms_size() == 1 && response.alarms(0).alarm() == etcdserverpb::NOSPACE;
  }

 private:
  static std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_wait_for_ready(true);
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return context;
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance_;
};

// Until the disk is full. What was acknowledged, or -1.
int Fill(Kv& kv) {
  const std::string value(kValueBytes, 'v');
  for (int i = 0; i < kPutsMax; ++i) {
    const grpc::Status status = kv.Put(absl::StrCat("big-", i), value);
    if (status.ok()) continue;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(status.error_message(), kNoSpaceText);
    return i;
  }
  ADD_FAILURE() << "the disk was never full";
  return -1;
}

TEST(FullDiskTest, AMemberOnAFullDiskStaysAndRecoversByItself) {
  CONCLAVE_START_CLUSTER(cluster, ServerUnderTest{ServerKind::kConclave, 3});
  cluster->Kill(1);
  const auto disk = SmallDisk::Over(cluster->data_dir(1), "140m");
  if (disk == nullptr) GTEST_SKIP() << "no file system can be mounted here";
  ASSERT_TRUE(cluster->Restart(1).ok());
  ASSERT_TRUE(cluster->WaitHealthy(1, kPatience).ok());
  Kv full(cluster->endpoint(1));
  Kv other(cluster->endpoint(0));
  const int puts = Fill(full);
  ASSERT_GT(puts, 0);
  // Read-only, for everybody.
  EXPECT_TRUE(WaitFor([&] { return other.HasAlarm(); }, kPatience));
  EXPECT_EQ(other.Put("more", "value").error_message(), kNoSpaceText);
  EXPECT_EQ(full.Count(), puts);
  EXPECT_EQ(other.Count(), puts);
  EXPECT_THAT(Get(PortOf(cluster->endpoint(1)), "/health"), HasSubstr("ALARM NOSPACE"));
  // And as often as it is started.
  for (int i = 0; i < 2; ++i) {
    cluster->Kill(1);
    ASSERT_TRUE(cluster->Restart(1).ok());
    ASSERT_TRUE(WaitFor([&] { return full.Count() == puts; }, kPatience));
  }
  // What frees space goes through, and then the disk has room again without anybody's help.
  ASSERT_TRUE(full.DeleteAllAndCompact());
  EXPECT_TRUE(WaitFor([&] { return !full.HasAlarm(); }, kPatience));
  EXPECT_TRUE(WaitFor([&] { return full.Put("more", "value").ok(); }, kPatience));
  EXPECT_EQ(full.Count(), 0);
}

// Somebody else fills the disk, and leaves.
TEST(FullDiskTest, AMemberAloneSurvivesANeighboursFile) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory.path("data"));
  const auto disk = SmallDisk::Over(directory.path("data"), "100m");
  if (disk == nullptr) GTEST_SKIP() << "no file system can be mounted here";
  SingleServer server(directory.path("data"), {"--conclave-log-segment-bytes=4194304"});
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  Kv kv(server.endpoint());
  ASSERT_TRUE(kv.Put("big-before", "value").ok());
  disk->Fill();
  const std::string value(kValueBytes, 'v');
  ASSERT_TRUE(WaitFor([&] { return kv.Put("big-other", value).error_message() == kNoSpaceText; },
                      kPatience));
  EXPECT_TRUE(WaitFor([&] { return kv.HasAlarm(); }, kPatience));
  EXPECT_EQ(kv.Count(), 2);
  disk->Free();
  EXPECT_TRUE(WaitFor([&] { return !kv.HasAlarm(); }, kPatience));
  EXPECT_TRUE(WaitFor([&] { return kv.Put("big-after", value).ok(); }, kPatience));
}

}  // namespace
}  // namespace conclave::testing
