// The real server against damage, forgetting, kills, full disks, and bytes that make no sense: it
// says what is wrong in one line, or goes on serving; what it acknowledged, it keeps.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

#include "conclave/tests/app/server_process.h"

namespace conclave {
namespace {

using testing::Exchange;
using testing::FreePort;
using testing::Get;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::Put;
using testing::ReadAll;
using testing::ReadFile;
using testing::RunToEnd;
using testing::ServerKind;
using testing::SingleServer;
using testing::TemporaryDirectory;
using testing::TestCluster;
using testing::WaitFor;

namespace fs = std::filesystem;

const std::vector<std::string> kTinyFiles = {"--conclave-snapshot-log-bytes=20000",
                                             "--conclave-log-segment-bytes=16384"};

std::map<std::string, std::string> Tree(const std::string& directory) {
  std::map<std::string, std::string> tree;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    tree[entry.path()] = entry.is_regular_file() ? ReadFile(entry.path()) : "directory";
  }
  return tree;
}

// Ends with 1 and one line that holds these words; the directory stays as it was.
void ExpectRefused(SingleServer& server, const std::string& directory,
                   const std::vector<std::string>& words) {
  server.flags_.push_back("--log-level=error");
  const auto before = Tree(directory);
  server.Start();
  EXPECT_EQ(server.process_->Wait().value_or(-1), 1);
  const std::string output = server.Output();
  for (const std::string& word : words) EXPECT_THAT(output, HasSubstr(word));
  EXPECT_EQ(output.find('\n'), output.size() - 1) << output;
  EXPECT_EQ(Tree(directory), before);
}

std::vector<fs::path> Snapshots(const std::string& data) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(data + "/snapshot", ignored)) {
    if (entry.path().extension() == ".snapshot") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// ---- Flags and the environment ------------------------------------------------------------------

struct BadStart {
  std::vector<std::string> flags;
  std::vector<std::string> words;
};

TEST(BadStartTest, EveryBadFlagIsTwoAndOneLineThatNamesIt) {
  const std::vector<BadStart> starts = {
      {{"--nonsense"}, {"unknown flag --nonsense", "--help"}},
      {{"--name"}, {"--name needs a value"}},
      {{"--data-dir"}, {"--data-dir needs a value"}},
      {{"--listen-client-urls=127.0.0.1:1"}, {"--listen-client-urls", "no scheme", "http://"}},
      {{"--listen-client-urls=https://127.0.0.1:1"}, {"--cert-file, --key-file", "TLS"}},
      {{"--listen-peer-urls=http://127.0.0.1:65536"}, {"--listen-peer-urls", "65535"}},
      {{"--listen-peer-urls=http://127.0.0.1:-1"}, {"--listen-peer-urls", "65535"}},
      {{"--advertise-client-urls=http://"}, {"--advertise-client-urls", "no port"}},
      {{"--grpc-keepalive-timeout=20"}, {"--grpc-keepalive-timeout", "duration", "500ms"}},
      {{"--grpc-keepalive-timeout=-1s"}, {"--grpc-keepalive-timeout", "at least"}},
      {{"--heartbeat-interval=1e3"}, {"--heartbeat-interval", "whole number"}},
      {{"--heartbeat-interval=99999999999999999999"}, {"--heartbeat-interval", "whole number"}},
      {{"--quota-backend-bytes=lots"}, {"--quota-backend-bytes", "whole number"}},
      {{"--initial-cluster=other=http://127.0.0.1:1"}, {"--initial-cluster", "default=http://"}},
      {{"--initial-cluster=default=http://h:1,b=http://h:1"}, {"--initial-cluster", "to both"}},
      {{"--initial-cluster=default"}, {"--initial-cluster", "name=http://host:port"}},
      {{"--initial-cluster=default=http://h:1", "--initial-advertise-peer-urls=http://h:2"},
       {"--initial-cluster", "--initial-advertise-peer-urls", "make them the same"}},
      {{"--conclave-snapshot-log-bytes=1"}, {"--conclave-snapshot-log-bytes", "from 4096"}},
      {{"--conclave-log-segment-bytes=10000"}, {"--conclave-log-segment-bytes", "multiple"}},
      {{"--log-outputs=/proc/none/log"}, {"--log-outputs", "/proc/none/log"}},
      {{"--max-learners=0"}, {"--max-learners", "from 1 to 64"}},
      {{"serve"}, {"serve", "is not a flag"}},
  };
  for (const BadStart& start : starts) {
    SCOPED_TRACE(start.flags.front());
    const Outcome outcome = RunToEnd(start.flags);
    EXPECT_EQ(outcome.code, 2);
    for (const std::string& word : start.words) EXPECT_THAT(outcome.output, HasSubstr(word));
    EXPECT_EQ(outcome.output.find('\n'), outcome.output.size() - 1) << outcome.output;
  }
}

TEST(BadStartTest, ADirectoryThatCannotBeUsedIsOne) {
  TemporaryDirectory directory;
  const std::string open = directory.path("open");
  fs::create_directory(open);
  fs::permissions(open, fs::perms(0755));
  SingleServer readable(open);
  ExpectRefused(readable, open, {open, "0755", "chmod 700"});
  SingleServer nowhere("/proc/conclave");
  ExpectRefused(nowhere, directory.path(""), {"/proc/conclave", "cannot create"});
  SingleServer elsewhere(directory.path("a"));
  elsewhere.flags_.push_back("--listen-client-urls=http://192.0.2.1:1");
  ExpectRefused(elsewhere, directory.path(""), {"192.0.2.1:1"});
}

TEST(BadStartTest, ADirectoryOfSomebodyElseStaysUntouched) {
  TemporaryDirectory directory;
  const std::string etcd = directory.path("etcd");
  fs::create_directories(etcd + "/member/wal");
  fs::permissions(etcd, fs::perms(0700));
  SingleServer on_etcd(etcd);
  ExpectRefused(on_etcd, etcd, {"data directory of etcd"});
}

// As etcd has it: what founded the cluster does not matter any more.
TEST(RestartTest, AMemberIsWhoItsDirectorySaysWhateverTheInitialClusterIs) {
  TemporaryDirectory directory;
  const std::string data = directory.path("a");
  SingleServer server(data);
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  ASSERT_TRUE(Put(server.endpoint(), "kept", "v", std::chrono::seconds(20)));
  server.process_->Signal(SIGTERM);
  ASSERT_EQ(server.process_->Wait().value_or(-1), 0);
  const std::vector<std::vector<std::string>> changes = {
      {"--initial-cluster-token=another"},
      {"--initial-cluster=default=http://127.0.0.1:2,b=http://127.0.0.1:1"},
      {"--initial-cluster=b=http://127.0.0.1:1"},
      {"--initial-cluster=b=http://127.0.0.1:1", "--initial-cluster-state=existing"},
      {"--discovery-token=nobody", "--discovery-endpoints=127.0.0.1:1"}};
  for (const auto& flags : changes) {
    SingleServer changed(data, flags);  // at other ports, too
    changed.Start();
    ASSERT_TRUE(changed.WaitReady()) << flags[0] << "\n" << changed.Output();
    EXPECT_EQ(ReadAll(changed.endpoint()).count("kept"), 1u);
    changed.process_->Signal(SIGTERM);
    EXPECT_EQ(changed.process_->Wait().value_or(-1), 0);
  }
}

// ---- Forgetting and damage ----------------------------------------------------------------------

// Fills a server until it has taken so many snapshots; gives what was acknowledged.
std::map<std::string, std::string> Fill(SingleServer& server, size_t snapshots) {
  std::map<std::string, std::string> acknowledged;
  auto stub = etcdserverpb::KV::NewStub(
      grpc::CreateChannel(server.endpoint(), grpc::InsecureChannelCredentials()));
  const auto saved = [&] {
    const std::string output = server.Output();
    size_t count = 0;
    for (size_t at = 0; (at = output.find("saved snapshot", at)) != std::string::npos; ++at) {
      ++count;
    }
    return count;
  };
  for (int i = 0; i < 5000 && (i % 20 != 0 || saved() < snapshots); ++i) {
    grpc::ClientContext context;
    etcdserverpb::PutRequest request;
    request.set_key(absl::StrCat("key", i % 50));
    request.set_value(absl::StrCat(i, std::string(300, 'v')));
    etcdserverpb::PutResponse response;
    if (!stub->Put(&context, request, &response).ok()) break;
    acknowledged[request.key()] = request.value();
  }
  EXPECT_GE(saved(), snapshots);
  return acknowledged;
}

TEST(DamageTest, ADamagedNewestSnapshotCostsNothing) {
  TemporaryDirectory directory;
  const std::string data = directory.path("a");
  SingleServer server(data, kTinyFiles);
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  const auto expected = Fill(server, 4);
  server.process_->Signal(SIGKILL);
  ASSERT_TRUE(server.process_->Wait().ok());
  for (int round = 0; round < 2; ++round) {
    const auto snapshots = Snapshots(data);
    ASSERT_GE(snapshots.size(), 2u) << "round " << round;
    const fs::path newest = snapshots.back();
    std::string bytes = ReadFile(newest);
    bytes[bytes.size() / 2] ^= 1;
    std::ofstream(newest, std::ios::binary) << bytes;
    server.Start();
    ASSERT_TRUE(server.WaitReady()) << server.Output();
    EXPECT_THAT(server.Output(), HasSubstr("\"level\":\"warn\""));
    EXPECT_THAT(server.Output(), HasSubstr(newest.filename().string() + " is damaged"));
    auto found = ReadAll(server.endpoint());
    if (round == 0) EXPECT_EQ(found, expected);
    // The next snapshot leaves two good ones again.
    Fill(server, 2);
    EXPECT_TRUE(WaitFor([&] { return !fs::exists(newest.string() + ".damaged"); }));
    server.process_->Signal(SIGKILL);
    ASSERT_TRUE(server.process_->Wait().ok());
  }
}

TEST(DamageTest, AMemberThatHasLostItsMemoryDoesNotStart) {
  TemporaryDirectory directory;
  const std::string data = directory.path("a");
  SingleServer server(data, kTinyFiles);
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  const auto expected = Fill(server, 3);
  server.process_->Signal(SIGKILL);
  ASSERT_TRUE(server.process_->Wait().ok());
  const std::string aside = directory.path("aside");
  for (const bool emptied : {false, true}) {
    for (const std::string part : {"wal", "snapshot"}) {
      fs::rename(data + "/" + part, aside);
      if (emptied) fs::create_directory(data + "/" + part);
      SingleServer again = SingleServer(data, kTinyFiles, server.client_port_, server.peer_port_);
      ExpectRefused(again, data, {data + "/" + part, "missing", "back"});
      if (emptied) fs::remove(data + "/" + part);
      fs::rename(aside, data + "/" + part);
    }
  }
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  EXPECT_EQ(ReadAll(server.endpoint()), expected);
}

// ---- Kills --------------------------------------------------------------------------------------

struct Digest {
  int64_t revision = 0;
  uint32_t hash = 0;
};

// HashKV of one member at a revision (0: its own).
std::optional<Digest> HashOf(const std::string& endpoint, int64_t revision) {
  auto stub = etcdserverpb::Maintenance::NewStub(
      grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  etcdserverpb::HashKVRequest request;
  request.set_revision(revision);
  etcdserverpb::HashKVResponse response;
  if (!stub->HashKV(&context, request, &response).ok()) return std::nullopt;
  return Digest{response.header().revision(), response.hash()};
}

// Puts until told to stop; what is acknowledged must stay, and revisions must grow.
class Writer {
 public:
  explicit Writer(std::string endpoint, int number)
      : endpoint_(std::move(endpoint)), number_(number), thread_([this] { Run(); }) {}
  ~Writer() { Stop(); }
  void Stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  uint64_t count() const { return count_; }
  // Of the writer's thread; read after Stop.
  std::map<std::string, std::string> acknowledged;
  int64_t revision = 0;
  bool went_back = false;

 private:
  void Run() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto stub = etcdserverpb::KV::NewStub(
        grpc::CreateCustomChannel(endpoint_, grpc::InsecureChannelCredentials(), arguments));
    for (int i = 0; !stopping_; ++i) {
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
      etcdserverpb::PutRequest request;
      request.set_key(absl::StrCat("w", number_, "-", i));
      request.set_value(std::string(200, static_cast<char>('a' + i % 26)));
      etcdserverpb::PutResponse response;
      if (!stub->Put(&context, request, &response).ok()) continue;
      went_back = went_back || response.header().revision() <= revision;
      revision = response.header().revision();
      acknowledged[request.key()] = request.value();
      ++count_;
    }
  }

  const std::string endpoint_;
  const int number_;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> count_{0};
  std::thread thread_;
};

class KillTest : public ::testing::TestWithParam<int> {};

// With files so small that kills fall amid snapshots, new segments and the cutting of the log.
TEST_P(KillTest, NothingAcknowledgedIsLostAndMembersAgree) {
  const int members = GetParam();
  if (const auto binary = testing::ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status().message();
  }
  auto started = TestCluster::Start(TestCluster::Options{
      .kind = ServerKind::kConclave, .members = members, .extra_flags = kTinyFiles});
  ASSERT_TRUE(started.ok()) << started.status();
  const auto cluster = *std::move(started);
  std::vector<std::unique_ptr<Writer>> writers;
  for (int i = 0; i < members; ++i) {
    writers.push_back(std::make_unique<Writer>(cluster->endpoint(i), i));
  }
  const auto total = [&] {
    uint64_t sum = 0;
    for (const auto& writer : writers) sum += writer->count();
    return sum;
  };
  const int rounds = members == 1 ? 12 : 6;
  for (int round = 0; round < rounds; ++round) {
    const uint64_t goal = total() + 150 + static_cast<uint64_t>(round) * 17;
    ASSERT_TRUE(WaitFor([&] { return total() >= goal; }, absl::Seconds(20))) << round;
    const int victim = round % 3 == 2 ? cluster->Leader().value_or(0) : round % members;
    cluster->Kill(victim);
    ASSERT_TRUE(cluster->Restart(victim).ok());
    ASSERT_TRUE(cluster->WaitAllHealthy().ok()) << round;
  }
  int64_t newest = 0;
  for (const auto& writer : writers) {
    writer->Stop();
    EXPECT_FALSE(writer->went_back);
    newest = std::max(newest, writer->revision);
  }
  EXPECT_THAT(ReadFile(cluster->log_path(0)), HasSubstr("saved snapshot"));
  std::optional<Digest> first;
  for (int i = 0; i < members; ++i) {
    const auto found = ReadAll(cluster->endpoint(i));
    for (const auto& writer : writers) {
      for (const auto& [key, value] : writer->acknowledged) {
        const auto entry = found.find(key);
        ASSERT_NE(entry, found.end()) << key << " is gone from member " << i;
        ASSERT_EQ(entry->second, value);
      }
    }
    const auto digest = HashOf(cluster->endpoint(i), newest);
    ASSERT_TRUE(digest.has_value());
    EXPECT_GE(digest->revision, newest);
    if (!first.has_value()) first = digest;
    EXPECT_EQ(digest->hash, first->hash) << "member " << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Members, KillTest, ::testing::Values(1, 3));

// ---- A full disk --------------------------------------------------------------------------------

TEST(FullDiskTest, ItStaysAndGoesOnWhenThereIsSpace) {
  TemporaryDirectory directory;
  const std::string mount_point = directory.path("disk");
  fs::create_directory(mount_point);
  if (mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0) {
    GTEST_SKIP() << "a small file system can be mounted by root only";
  }
  SingleServer server(mount_point + "/a",
                      {"--conclave-snapshot-log-bytes=100000000000",
                       "--conclave-log-segment-bytes=65536", "--log-level=error"});
  server.Start();
  std::map<std::string, std::string> acknowledged;
  const std::string value(4000, 'v');
  ASSERT_TRUE(WaitFor([&] { return Put(server.endpoint(), "first", value); }));
  for (int i = 0; i < 1000; ++i) {
    if (!Put(server.endpoint(), absl::StrCat("k", i), value)) break;
    acknowledged[absl::StrCat("k", i)] = value;
  }
  EXPECT_GT(acknowledged.size(), 20u);
  EXPECT_LT(acknowledged.size(), 300u);
  EXPECT_TRUE(server.process_->Running());
  EXPECT_THAT(server.Output(), HasSubstr("the disk is full"));
  EXPECT_EQ(ReadAll(server.endpoint()).size(), acknowledged.size() + 1);
  ASSERT_EQ(mount("tmpfs", mount_point.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);
  EXPECT_TRUE(WaitFor([&] { return Put(server.endpoint(), "more", value); }, absl::Seconds(30)))
      << server.Output();
  const auto found = ReadAll(server.endpoint());
  for (const auto& [key, value_of_key] : acknowledged) EXPECT_TRUE(found.contains(key)) << key;
  server.process_->Signal(SIGKILL);
  EXPECT_TRUE(server.process_->Wait().ok());
  EXPECT_EQ(umount(mount_point.c_str()), 0);
}

}  // namespace
}  // namespace conclave
