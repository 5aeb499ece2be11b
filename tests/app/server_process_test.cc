// The server as its user meets it: the real binary, its exit codes and lines, its ports under bad
// bytes, and what is left of acknowledged writes when it is killed.
#include "conclave/tests/app/server_process.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using testing::Exchange;
using testing::FreePort;
using testing::Get;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::PortOf;
using testing::Put;
using testing::ReadAll;
using testing::ReadFile;
using testing::RunToEnd;
using testing::ServerKind;
using testing::SingleServer;
using testing::TemporaryDirectory;
using testing::WaitFor;

// ---- Exit codes ---------------------------------------------------------------------------------

TEST(ExitCodeTest, ABadFlagIsTwoAndOneLine) {
  const Outcome outcome = RunToEnd({"--heartbeat-intervall=100"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("unknown flag --heartbeat-intervall"));
  EXPECT_THAT(outcome.output, HasSubstr("did you mean --heartbeat-interval?"));
  EXPECT_EQ(outcome.output.find('\n'), outcome.output.size() - 1);
}

TEST(ExitCodeTest, ABadVariableIsTwo) {
  const Outcome outcome = RunToEnd({}, {"ETCD_ELECTION_TIMEOUT=soon"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("ETCD_ELECTION_TIMEOUT"));
}

TEST(ExitCodeTest, HelpAndVersionAreZero) {
  const Outcome help = RunToEnd({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.output, HasSubstr("--initial-cluster"));
  const Outcome version = RunToEnd({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.output, HasSubstr("etcd Version: 3."));
}

TEST(ExitCodeTest, APortInUseIsOneAndNamesTheAddress) {
  TemporaryDirectory directory;
  SingleServer first(directory.path("a"));
  first.Start();
  ASSERT_TRUE(first.WaitReady()) << first.Output();
  for (const bool peer : {false, true}) {
    SingleServer second(directory.path("b"), {"--log-level=error"},
                        peer ? FreePort() : first.client_port_,
                        peer ? first.peer_port_ : FreePort());
    second.Start();
    EXPECT_EQ(second.process_->Wait().value_or(-1), 1);
    EXPECT_THAT(second.Output(), HasSubstr(absl::StrCat(
                                     "127.0.0.1:", peer ? first.peer_port_ : first.client_port_)));
    EXPECT_THAT(second.Output(), HasSubstr("in use"));
    EXPECT_EQ(second.Output().find('\n'), second.Output().size() - 1) << second.Output();
  }
}

TEST(ExitCodeTest, ADataDirectoryInUseOrOfSomebodyElseIsOne) {
  TemporaryDirectory directory;
  SingleServer first(directory.path("a"));
  first.Start();
  ASSERT_TRUE(first.WaitReady());
  SingleServer same(directory.path("a"), {"--log-level=error"});
  same.Start();
  EXPECT_EQ(same.process_->Wait().value_or(-1), 1);
  EXPECT_THAT(same.Output(), HasSubstr("in use by another process"));
  first.process_->Signal(SIGTERM);
  EXPECT_EQ(first.process_->Wait().value_or(-1), 0);

  std::ofstream(directory.path("file")) << "not a directory";
  SingleServer no_directory(directory.path("file"), {"--log-level=error"});
  no_directory.Start();
  EXPECT_EQ(no_directory.process_->Wait().value_or(-1), 1);
  EXPECT_THAT(no_directory.Output(), HasSubstr(directory.path("file")));
  SingleServer no_parent(directory.path("none/below"), {"--log-level=error"});
  no_parent.Start();
  EXPECT_EQ(no_parent.process_->Wait().value_or(-1), 1);
  EXPECT_THAT(no_parent.Output(), HasSubstr(directory.path("none/below")));
}

TEST(ExitCodeTest, BothSignalsEndItWithZeroAndThePortsAreFreeAtOnce) {
  TemporaryDirectory directory;
  SingleServer server(directory.path("a"));
  for (const int signal : {SIGTERM, SIGINT}) {
    server.Start();
    ASSERT_TRUE(server.WaitReady()) << server.Output();
    ASSERT_TRUE(Put(server.endpoint(), "k", "v"));
    server.process_->Signal(signal);
    EXPECT_EQ(server.process_->Wait(absl::Milliseconds(1500)).value_or(-1), 0);
    EXPECT_THAT(server.Output(), Not(HasSubstr("\"level\":\"error\"")));
  }
}

// ---- The client port under bad bytes ------------------------------------------------------------

class PortTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TemporaryDirectory;
    server_ = new SingleServer(directory_->path("a"));
    server_->Start();
    ASSERT_TRUE(server_->WaitReady()) << server_->Output();
  }
  static void TearDownTestSuite() {
    delete server_;
    delete directory_;
  }
  static TemporaryDirectory* directory_;
  static SingleServer* server_;
};
TemporaryDirectory* PortTest::directory_ = nullptr;
SingleServer* PortTest::server_ = nullptr;

TEST_F(PortTest, HttpAndGrpcShareOnePort) {
  const int port = server_->client_port_;
  EXPECT_TRUE(Put(server_->endpoint(), "shared", "port"));
  const std::string health = Get(port, "/health");
  EXPECT_THAT(health, HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(health, HasSubstr(R"({"health":"true","reason":""})"));
  EXPECT_THAT(Get(port, "/health?serializable=true&exclude=NOSPACE"), HasSubstr("200 OK"));
  EXPECT_THAT(Get(port, "/version"), HasSubstr(R"("etcdserver":"3.)"));
  EXPECT_THAT(Get(port, "/livez"), HasSubstr("\r\n\r\nok\n"));
  EXPECT_THAT(Get(port, "/readyz?verbose"), HasSubstr("[+]linearizable_read ok\n"));
  EXPECT_THAT(Get(port, "/readyz/linearizable_read"), HasSubstr("200 OK"));
  EXPECT_THAT(Get(port, "/readyz/nonsense"), HasSubstr("404 Not Found"));
  EXPECT_THAT(Get(port, "/nothing"), HasSubstr("404 Not Found"));
  const std::string post = Get(port, "/health", "POST");
  EXPECT_THAT(post, HasSubstr("405 Method Not Allowed"));
  EXPECT_THAT(post, HasSubstr("Allow: GET"));
}

TEST_F(PortTest, MetricsHaveEtcdsNamesAndStartAtZero) {
  const std::string page = Get(server_->client_port_, "/metrics");
  for (const char* line :
       {"etcd_server_has_leader 1", "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"}",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"}",
        "etcd_mvcc_db_total_size_in_bytes", "etcd_network_client_grpc_received_bytes_total",
        "process_resident_memory_bytes", "etcd_server_quota_backend_bytes",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"AuthEnable\","
        "grpc_service=\"etcdserverpb.Auth\",grpc_type=\"unary\"} 0",
        "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\","
        "grpc_type=\"bidi_stream\"} 0"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST_F(PortTest, GarbageCostsItsConnectionOnly) {
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  for (const std::string& bytes :
       {std::string(), std::string("\0", 1), std::string(100'000, '\xff'),
        std::string("PRI * HTTP/9\r\n\r\n"), preface + std::string(1000, '\xff'),
        preface + std::string("\0\0\0\4\0\0\0\0\0", 9), std::string("GET /health HTTP/1.1\r\nHost"),
        std::string("GET ") + std::string(100'000, 'a'),
        std::string("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 11)}) {
    Exchange(server_->client_port_, bytes);
    EXPECT_TRUE(Put(server_->endpoint(), "after", "garbage"));
    Exchange(server_->peer_port_, bytes);
  }
  EXPECT_THAT(Get(server_->client_port_, "/health"), HasSubstr("200 OK"));
}

// Clients that open connections and say nothing, or next to nothing, hold up nobody.
TEST_F(PortTest, SilentClientsHoldUpNobody) {
  std::vector<int> silent;
  for (int i = 0; i < 200; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->client_port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    if (i % 3 == 1) ASSERT_EQ(send(fd, "P", 1, MSG_NOSIGNAL), 1);
    if (i % 3 == 2) ASSERT_EQ(send(fd, "GET /he", 7, MSG_NOSIGNAL), 7);
    silent.push_back(fd);
  }
  EXPECT_TRUE(Put(server_->endpoint(), "despite", "silence"));
  EXPECT_THAT(Get(server_->client_port_, "/health"), HasSubstr("200 OK"));
  for (const int fd : silent) close(fd);
}

TEST(FlagEffectTest, TheLimitOfATransactionIsTheFlags) {
  TemporaryDirectory directory;
  SingleServer server(directory.path("a"), {"--max-txn-ops=200", "--max-request-bytes=10000"});
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  auto stub = etcdserverpb::KV::NewStub(
      grpc::CreateChannel(server.endpoint(), grpc::InsecureChannelCredentials()));
  const auto status_of = [&stub](int operations) {
    etcdserverpb::TxnRequest request;
    for (int i = 0; i < operations; ++i) {
      request.add_success()->mutable_request_put()->set_key(absl::StrCat("k", i));
    }
    etcdserverpb::TxnResponse response;
    grpc::ClientContext context;
    return stub->Txn(&context, request, &response);
  };
  EXPECT_TRUE(status_of(200).ok());
  EXPECT_EQ(status_of(201).error_message(), "etcdserver: too many operations in txn request");
  EXPECT_FALSE(Put(server.endpoint(), "k", std::string(10'001, 'v')));
  EXPECT_TRUE(Put(server.endpoint(), "k", std::string(9'000, 'v')));
}

TEST(FlagEffectTest, TheProfilersPagesShowTheCommandLineWithoutPasswords) {
  TemporaryDirectory directory;
  SingleServer server(directory.path("a"), {"--enable-pprof", "--discovery-password=secret"});
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  const std::string shown = Get(server.client_port_, "/debug/pprof/cmdline");
  EXPECT_THAT(shown, HasSubstr("200 OK"));
  EXPECT_THAT(shown, HasSubstr(std::string("\0--enable-pprof\0", 16)));
  EXPECT_THAT(shown, Not(HasSubstr("secret")));
  EXPECT_THAT(Get(server.client_port_, "/debug/pprof/heap"), HasSubstr("501 Not Implemented"));
}

// The statuses that a watch of the server's health hears while `meanwhile` runs, which begins when
// the first is there; then whatever comes until `count` are there.
std::vector<std::string> WatchHealth(const std::string& endpoint, size_t count,
                                     const std::function<void()>& meanwhile) {
  grpc::GenericStub stub(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  const auto done = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto stream = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  stream->StartCall(nullptr);
  EXPECT_TRUE(done());
  const grpc::Slice nothing("");
  stream->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
  EXPECT_TRUE(done());
  std::vector<std::string> statuses;
  while (statuses.size() < count) {
    grpc::ByteBuffer message;
    stream->Read(&message, nullptr);
    if (!done()) break;
    grpc::Slice bytes;
    EXPECT_TRUE(message.DumpToSingleSlice(&bytes).ok());
    statuses.emplace_back(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
    if (statuses.size() == 1) meanwhile();
  }
  context.TryCancel();
  grpc::Status end;
  stream->Finish(&end, nullptr);
  done();
  return statuses;
}

TEST(FlagEffectTest, AWatchOfTheHealthHearsOfDefragmentation) {
  constexpr char kServing[] = "\x08\x01";
  constexpr char kNotServing[] = "\x08\x02";
  for (const bool on : {true, false}) {
    TemporaryDirectory directory;
    SingleServer server(
        directory.path("a"),
        {absl::StrCat("--feature-gates=StopGRPCServiceOnDefrag=", on ? "true" : "false")});
    server.Start();
    ASSERT_TRUE(server.WaitReady()) << server.Output();
    auto stub = etcdserverpb::Maintenance::NewStub(
        grpc::CreateChannel(server.endpoint(), grpc::InsecureChannelCredentials()));
    const auto statuses = WatchHealth(server.endpoint(), on ? 5 : 1, [&] {
      for (int i = 0; i < 2; ++i) {
        grpc::ClientContext context;
        etcdserverpb::DefragmentResponse response;
        EXPECT_TRUE(stub->Defragment(&context, {}, &response).ok());
      }
    });
    const std::vector<std::string> expected =
        on ? std::vector<std::string>{kServing, kNotServing, kServing, kNotServing, kServing}
           : std::vector<std::string>{kServing};
    EXPECT_EQ(statuses, expected);
  }
}

// ---- What survives ------------------------------------------------------------------------------

// Writers that remember what was acknowledged, while somebody kills servers.
class Writers {
 public:
  explicit Writers(std::vector<std::string> endpoints) : endpoints_(std::move(endpoints)) {
    for (int i = 0; i < 4; ++i) threads_.emplace_back([this, i] { Run(i); });
  }
  ~Writers() { Stop(); }
  void Stop() {
    stopping_ = true;
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  size_t acknowledged() {
    std::lock_guard lock(mutex_);
    return acknowledged_.size();
  }
  std::map<std::string, std::string> TakeAcknowledged() {
    std::lock_guard lock(mutex_);
    return acknowledged_;
  }

 private:
  void Run(int writer) {
    std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs;
    for (const std::string& endpoint : endpoints_) {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
      arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs.push_back(etcdserverpb::KV::NewStub(
          grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments)));
    }
    for (int i = 0; !stopping_; ++i) {
      const std::string key = absl::StrCat("w", writer, "-", i);
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
      etcdserverpb::PutRequest request;
      request.set_key(key);
      request.set_value(absl::StrCat("v", i));
      etcdserverpb::PutResponse response;
      if (!stubs[static_cast<size_t>(i) % stubs.size()]->Put(&context, request, &response).ok())
        continue;
      std::lock_guard lock(mutex_);
      acknowledged_[key] = request.value();
    }
  }

  const std::vector<std::string> endpoints_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::string, std::string> acknowledged_;
  std::vector<std::thread> threads_;
};

class CrashTest : public ::testing::TestWithParam<int> {};

TEST_P(CrashTest, AcknowledgedWritesSurviveKills) {
  const int members = GetParam();
  CONCLAVE_START_CLUSTER(cluster, testing::ServerUnderTest{ServerKind::kConclave, members});
  Writers writers(cluster->endpoints());
  const int rounds = members == 1 ? 8 : 6;
  for (int round = 0; round < rounds; ++round) {
    const size_t before = writers.acknowledged();
    ASSERT_TRUE(WaitFor([&] { return writers.acknowledged() >= before + 50; }, absl::Seconds(20)))
        << "round " << round;
    const int victim =
        members == 1 ? 0 : (round % 2 == 0 ? cluster->Leader().value_or(0) : round % members);
    cluster->Kill(victim);
    if (members == 3 && round == rounds - 1) {  // all of them at once
      for (int i = 0; i < members; ++i) {
        if (i != victim) cluster->Kill(i);
      }
      for (int i = 0; i < members; ++i) ASSERT_TRUE(cluster->Restart(i).ok());
    } else {
      ASSERT_TRUE(cluster->Restart(victim).ok());
    }
    ASSERT_TRUE(cluster->WaitAllHealthy().ok()) << "round " << round;
  }
  writers.Stop();
  const auto expected = writers.TakeAcknowledged();
  for (int i = 0; i < members; ++i) {
    const auto found = ReadAll(cluster->endpoint(i));
    for (const auto& [key, value] : expected) {
      const auto entry = found.find(key);
      ASSERT_NE(entry, found.end()) << key << " was acknowledged and is gone from member " << i;
      EXPECT_EQ(entry->second, value);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Members, CrashTest, ::testing::Values(1, 3));

TEST(HandOverTest, TheLeaderHandsOverOnSigtermAndWritesGoOn) {
  CONCLAVE_START_CLUSTER(cluster, testing::ServerUnderTest{ServerKind::kConclave, 3});
  for (int round = 0; round < 3; ++round) {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok()) << leader.status();
    const absl::Time start = absl::Now();
    cluster->Terminate(*leader);
    EXPECT_LT(absl::Now() - start, absl::Milliseconds(1500));
    // The others have a leader already: no election time-out passes.
    EXPECT_TRUE(Put(cluster->endpoint((*leader + 1) % 3), "after", "hand-over",
                    std::chrono::milliseconds(400)));
    EXPECT_THAT(ReadFile(cluster->log_path(*leader)), HasSubstr("handing over the leadership"));
    ASSERT_TRUE(cluster->Restart(*leader).ok());
    ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  }
}

TEST(LeaderlessTest, HealthSaysThatThereIsNoLeader) {
  CONCLAVE_START_CLUSTER(cluster, testing::ServerUnderTest{ServerKind::kConclave, 3});
  cluster->Kill(0);
  cluster->Kill(1);
  const int port = PortOf(cluster->endpoint(2));
  EXPECT_TRUE(
      WaitFor([&] { return Get(port, "/health").find("RAFT NO LEADER") != std::string::npos; }));
  EXPECT_THAT(Get(port, "/health?serializable=true"), HasSubstr("200 OK"));
  EXPECT_THAT(Get(port, "/metrics"), HasSubstr("etcd_server_has_leader 0"));
}

}  // namespace
}  // namespace conclave
