// Three real servers: one is away while the others get more than 100 MiB, then it gets the state
// while clients go on writing as fast as they can. The connection is cut in the middle, or the
// member is killed or told to end: it goes on from there, and catches up.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/app/server_process.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(90);
constexpr int kStateMiB = 112;
constexpr int64_t kMiB = 1 << 20;

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& endpoint) {
  return grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials());
}

uint64_t AppliedIndex(const std::string& endpoint) {
  auto stub = etcdserverpb::Maintenance::NewStub(ChannelTo(endpoint));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  etcdserverpb::StatusResponse response;
  if (!stub->Status(&context, {}, &response).ok()) return 0;
  return response.raftappliedindex();
}

uint32_t HashAt(const std::string& endpoint, int64_t revision) {
  auto stub = etcdserverpb::Maintenance::NewStub(ChannelTo(endpoint));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  etcdserverpb::HashKVRequest request;
  request.set_revision(revision);
  etcdserverpb::HashKVResponse response;
  return stub->HashKV(&context, request, &response).ok() ? response.hash() : 0;
}

// Puts one after the other, on one member, until it is stopped.
class Writer {
 public:
  Writer(const std::string& endpoint, int number)
      : stub_(etcdserverpb::KV::NewStub(ChannelTo(endpoint))), thread_([this, number] {
          for (int i = 0; !stop_; ++i) Put(absl::StrCat("writer-", number, "-", i % 1000));
        }) {}
  ~Writer() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int done() const { return done_; }
  // After Stop.
  const std::vector<absl::Duration>& times() const { return times_; }
  int failed() const { return failed_; }

 private:
  void Put(const std::string& key) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(std::string(256, 'w'));
    etcdserverpb::PutResponse response;
    const absl::Time begin = absl::Now();
    if (!stub_->Put(&context, request, &response).ok()) ++failed_;
    times_.push_back(absl::Now() - begin);
    ++done_;
  }

  const std::unique_ptr<etcdserverpb::KV::Stub> stub_;
  std::atomic<bool> stop_{false};
  std::atomic<int> done_{0};
  std::vector<absl::Duration> times_;
  int failed_ = 0;
  std::thread thread_;
};

absl::Duration P99(const std::vector<std::unique_ptr<Writer>>& writers) {
  std::vector<absl::Duration> all;
  for (const auto& writer : writers) {
    all.insert(all.end(), writer->times().begin(), writer->times().end());
  }
  if (all.empty()) return absl::InfiniteDuration();
  std::sort(all.begin(), all.end());
  return all[all.size() * 99 / 100];
}

std::vector<std::unique_ptr<Writer>> StartWriters(const TestCluster& cluster) {
  std::vector<std::unique_ptr<Writer>> writers;
  for (int i = 0; i < 4; ++i) {
    writers.push_back(std::make_unique<Writer>(cluster.endpoint(i % 2), i));
  }
  return writers;
}

// Bytes of a snapshot that is being received.
int64_t Received(const std::string& data_dir) {
  std::error_code error;
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(data_dir + "/snapshot", error)) {
    if (file.path().extension() != ".unfinished") continue;
    bytes = std::max(bytes, static_cast<int64_t>(file.file_size(error)));
  }
  return bytes;
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

// The sum of a number over all lines of the log that have it.
int64_t SumOf(const std::string& log, const std::string& field) {
  const std::string name = absl::StrCat("\"", field, "\":");
  int64_t sum = 0;
  for (size_t at = log.find(name); at != std::string::npos; at = log.find(name, at + 1)) {
    sum += std::stoll(log.substr(at + name.size(), 20));
  }
  return sum;
}

constexpr int kAway = 2;

// A cluster whose others have so much that it has not; null: it does not start.
std::unique_ptr<TestCluster> WithOneAway(int bytes_per_second, int state_mib) {
  auto started = TestCluster::Start(
      {.kind = ServerKind::kConclave,
       .members = 3,
       .extra_flags = {absl::StrCat("--conclave-snapshot-bytes-per-second=", bytes_per_second)},
       .peer_proxies = true});
  EXPECT_TRUE(started.ok()) << started.status();
  if (!started.ok()) return nullptr;
  std::unique_ptr<TestCluster> cluster = *std::move(started);
  cluster->Kill(kAway);
  for (int i = 0; i < state_mib; ++i) {
    const std::string value(kMiB, static_cast<char>('a' + i % 26));
    EXPECT_TRUE(WaitFor(
        [&] {
          return Put(cluster->endpoint(0), absl::StrCat("state-", i), value,
                     std::chrono::seconds(10));
        },
        kPatience));
  }
  return cluster;
}

TEST(CatchUpTest, AMemberThatWasAwayCatchesUpWhileWritesGoOn) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  // Slow enough to be cut in the middle.
  const std::unique_ptr<TestCluster> cluster = WithOneAway(25165824, kStateMiB);
  ASSERT_NE(cluster, nullptr);
  auto writers = StartWriters(*cluster);
  ASSERT_TRUE(WaitFor([&] { return writers[0]->done() >= 500; }, kPatience));
  for (auto& writer : writers) writer->Stop();
  const absl::Duration p99_before = P99(writers);

  writers = StartWriters(*cluster);
  ASSERT_TRUE(cluster->Restart(kAway).ok());
  const auto received = [&] { return Received(cluster->data_dir(kAway)); };
  ASSERT_TRUE(WaitFor([&] { return received() >= kStateMiB * kMiB / 3; }, kPatience));
  cluster->peer_proxy(kAway).Cut();
  const auto done = [&] { return writers[0]->done() + writers[1]->done(); };
  ASSERT_TRUE(WaitFor([&, before = done()] { return done() >= before + 100; }, kPatience));
  cluster->peer_proxy(kAway).Heal();

  const auto lag = [&] {
    const uint64_t here = AppliedIndex(cluster->endpoint(kAway));
    return here == 0 ? UINT64_MAX : AppliedIndex(cluster->endpoint(0)) - here;
  };
  EXPECT_TRUE(WaitFor([&] { return static_cast<int64_t>(lag()) >= 0 && lag() < 1000; }, kPatience))
      << ReadFile(cluster->log_path(kAway));
  for (auto& writer : writers) writer->Stop();
  const absl::Duration p99_during = P99(writers);

  const std::string log = ReadFile(cluster->log_path(0)) + ReadFile(cluster->log_path(1));
  const int64_t sent = SumOf(log, "sent-bytes");
  std::cout << "p99 of puts: " << p99_before << " before, " << p99_during
            << " while the state was sent; transfers: " << Count(log, "sending database snapshot")
            << ", bytes sent: " << sent << "\n";
  EXPECT_GE(Count(log, "\"sent database snapshot\""), 1);
  // One and a half would mean that it began anew.
  EXPECT_GE(sent, kStateMiB * kMiB);
  EXPECT_LE(sent, kStateMiB * kMiB * 5 / 4);
  for (const auto& writer : writers) EXPECT_EQ(writer->failed(), 0);

  ASSERT_TRUE(WaitFor([&] { return lag() == 0; }, kPatience));
  const uint32_t hash = HashAt(cluster->endpoint(0), 0);
  EXPECT_NE(hash, 0u);
  EXPECT_EQ(HashAt(cluster->endpoint(kAway), 0), hash);
}

// What had come is on its disk: the leader begins anew, and only names it.
class RestartTest : public ::testing::TestWithParam<bool> {};

TEST_P(RestartTest, AMemberThatEndsWhileItGetsTheStateGoesOnFromThere) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  constexpr int kMiBOfState = 64;
  const std::unique_ptr<TestCluster> cluster = WithOneAway(8 << 20, kMiBOfState);
  ASSERT_NE(cluster, nullptr);
  ASSERT_TRUE(cluster->Restart(kAway).ok());
  const auto received = [&] { return Received(cluster->data_dir(kAway)); };
  ASSERT_TRUE(WaitFor([&] { return received() >= kMiBOfState * kMiB / 2; }, kPatience));
  if (GetParam()) {
    cluster->Kill(kAway);
  } else {
    cluster->Terminate(kAway);
  }
  EXPECT_GE(received(), kMiBOfState * kMiB / 2);
  ASSERT_TRUE(cluster->Restart(kAway).ok());
  EXPECT_TRUE(cluster->WaitHealthy(kAway, kPatience).ok()) << ReadFile(cluster->log_path(kAway));
  EXPECT_TRUE(WaitFor(
      [&] { return AppliedIndex(cluster->endpoint(kAway)) == AppliedIndex(cluster->endpoint(0)); },
      kPatience));
  const std::string log = ReadFile(cluster->log_path(0)) + ReadFile(cluster->log_path(1));
  EXPECT_EQ(Count(log, "\"sent database snapshot\""), 1);
  const std::string line = log.substr(log.find("\"sent database snapshot\""));
  const std::string ended = line.substr(0, line.find('\n'));
  EXPECT_GE(SumOf(ended, "covered-bytes"), kMiBOfState * kMiB);
  EXPECT_LE(SumOf(ended, "sent-bytes"), kMiBOfState * kMiB * 5 / 8);
  const uint32_t hash = HashAt(cluster->endpoint(0), 0);
  EXPECT_NE(hash, 0u);
  EXPECT_EQ(HashAt(cluster->endpoint(kAway), 0), hash);
}

INSTANTIATE_TEST_SUITE_P(Ways, RestartTest, ::testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Killed" : "ToldToEnd");
});

}  // namespace
}  // namespace conclave::testing
