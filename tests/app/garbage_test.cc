// Both ports of the real server under bytes that make no sense, or too much sense at once: each
// costs its own connection, the server serves on, and its memory does not grow with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>
#include <string>
#include <vector>

#include "conclave/server/rpc/peer_wire.h"
#include "conclave/tests/app/server_process.h"

namespace conclave {
namespace {

using testing::Exchange;
using testing::Get;
using ::testing::HasSubstr;
using testing::Put;
using testing::SingleServer;
using testing::TemporaryDirectory;
using testing::WaitFor;

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// Sends as much as the other side takes within a second of patience per piece, reading nothing.
// False: it has closed the connection, or takes no more.
bool SendAll(int fd, std::string_view bytes) {
  const timeval patience{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kContinuation = 9,
};

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload = {}) {
  std::string frame;
  for (const int shift : {16, 8, 0}) frame.push_back(static_cast<char>(payload.size() >> shift));
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (const int shift : {24, 16, 8, 0}) frame.push_back(static_cast<char>(stream >> shift));
  return frame.append(payload);
}

const std::string kStart = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0);

// POST /etcdserverpb.KV/Range, application/grpc: HPACK literals that are not indexed.
std::string CallHeaders() {
  const std::string path = "/etcdserverpb.KV/Range";
  const std::string type = "application/grpc";
  return std::string("\x83\x86\x04") + static_cast<char>(path.size()) + path + "\x0f\x10" +
         static_cast<char>(type.size()) + type;
}

class GarbageTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    directory_ = new TemporaryDirectory;
    server_ = new SingleServer(directory_->path("a"));
    server_->Start();
    ASSERT_TRUE(server_->WaitReady()) << server_->Output();
  }
  static void TearDownTestSuite() {
    server_->process_->Signal(SIGTERM);
    EXPECT_EQ(server_->process_->Wait().value_or(-1), 0);
    delete server_;
    delete directory_;
  }
  void SetUp() override { resident_before_ = ResidentBytes(); }
  void TearDown() override {
    EXPECT_TRUE(Put(server_->endpoint(), "after", "garbage"));
    EXPECT_THAT(Get(server_->client_port_, "/health"), HasSubstr("200 OK"));
    // A sanitizer's own memory is not the server's.
    if (std::getenv("CONCLAVE_TEST_SERVER_SANITIZED") != nullptr) return;
    EXPECT_TRUE(WaitFor([&] { return ResidentBytes() < resident_before_ + kGrowthMax; }))
        << ResidentBytes() << " bytes, before " << resident_before_;
  }
  static uint64_t ResidentBytes() {
    std::ifstream file(absl::StrCat("/proc/", server_->process_->pid(), "/statm"));
    uint64_t total = 0;
    uint64_t resident = 0;
    file >> total >> resident;
    return resident * 4096;
  }
  static etcdserverpb::ResponseHeader Header() {
    auto stub = etcdserverpb::KV::NewStub(
        grpc::CreateChannel(server_->endpoint(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    etcdserverpb::RangeRequest request;
    request.set_key("k");
    etcdserverpb::RangeResponse response;
    EXPECT_TRUE(stub->Range(&context, request, &response).ok());
    return response.header();
  }

  static constexpr uint64_t kGrowthMax = 64u << 20;
  static TemporaryDirectory* directory_;
  static SingleServer* server_;
  uint64_t resident_before_ = 0;
};
TemporaryDirectory* GarbageTest::directory_ = nullptr;
SingleServer* GarbageTest::server_ = nullptr;

TEST_F(GarbageTest, StreamsThatAreOpenedAndResetAtOnce) {
  std::string burst;
  for (uint32_t i = 0; i < 50'000; ++i) {
    const uint32_t stream = 2 * i + 1;
    burst += Frame(kHeaders, 4, stream, CallHeaders());
    burst += Frame(kReset, 0, stream, std::string("\0\0\0\x08", 4));
  }
  const int fd = Connect(server_->client_port_);
  SendAll(fd, kStart + burst);
  EXPECT_TRUE(Put(server_->endpoint(), "amid", "resets"));
  close(fd);
}

TEST_F(GarbageTest, PingsAndSettingsWhoseAnswersNobodyReads) {
  std::string burst;
  for (int i = 0; i < 100'000; ++i) {
    burst += i % 2 == 0 ? Frame(kPing, 0, 0, "12345678") : Frame(kSettings, 0, 0);
  }
  const int fd = Connect(server_->client_port_);
  SendAll(fd, kStart + burst + burst + burst);
  EXPECT_TRUE(Put(server_->endpoint(), "amid", "pings"));
  close(fd);
}

TEST_F(GarbageTest, HeadersThatNeverEnd) {
  std::string burst = Frame(kHeaders, 0, 1, CallHeaders());
  const std::string field = std::string("\x00\x01x\x7f\x81\x7f", 6) + std::string(16384 - 6, 'y');
  for (int i = 0; i < 2000; ++i) burst += Frame(kContinuation, 0, 1, field);
  const int fd = Connect(server_->client_port_);
  EXPECT_FALSE(SendAll(fd, kStart + burst));
  close(fd);
  const int http = Connect(server_->client_port_);
  std::string line = "GET /health HTTP/1.1\r\n";
  for (int i = 0; i < 1'000'000; ++i) line += "X-Header: 1234567890\r\n";
  EXPECT_FALSE(SendAll(http, line));
  close(http);
}

TEST_F(GarbageTest, CallsThatAreCutOffOrLieAboutTheirLength) {
  for (const std::string& body :
       {std::string(), std::string("\0\0\0\0", 4), std::string("\0\xff\xff\xff\xff", 5) + "short",
        std::string("\1\0\0\0\1x", 6), std::string("\0\0\0\0\4\xff\xff\xff\xff", 9)}) {
    for (const uint8_t end : {0, 1}) {
      Exchange(server_->client_port_,
               kStart + Frame(kHeaders, 4, 1, CallHeaders()) + Frame(kData, end, 1, body));
    }
  }
}

TEST_F(GarbageTest, AClientThatAsksForMuchAndReadsNothingIsNotServedFurther) {
  ASSERT_TRUE(Put(server_->endpoint(), "big", std::string(1 << 20, 'x')));
  auto calls = [stream = uint32_t{1}](int count) mutable {
    std::string bytes;
    for (; count > 0; --count, stream += 2) {
      bytes += Frame(kHeaders, 4, stream, CallHeaders());
      bytes += Frame(kData, 1, stream, std::string("\0\0\0\0\5\x0a\3big", 10));
    }
    return bytes;
  };
  const uint64_t before = ResidentBytes();
  const int fd = Connect(server_->client_port_);
  ASSERT_TRUE(SendAll(fd, kStart + calls(80)));
  ASSERT_TRUE(WaitFor([&] { return ResidentBytes() > before + (70u << 20); }));
  SendAll(fd, calls(2000));
  EXPECT_TRUE(Put(server_->endpoint(), "amid", "unread"));
  EXPECT_LT(ResidentBytes(), before + (160u << 20));
  close(fd);
}

TEST_F(GarbageTest, ThousandsOfConnectionsThatSayNothing) {
  std::vector<int> silent;
  for (int i = 0; i < 3000; ++i) {
    const int fd = Connect(server_->client_port_);
    if (fd < 0) break;
    if (i % 3 == 1) SendAll(fd, "PRI * HTT");
    if (i % 3 == 2) SendAll(fd, kStart);
    silent.push_back(fd);
  }
  EXPECT_GT(silent.size(), 500u);
  EXPECT_TRUE(Put(server_->endpoint(), "amid", "silence"));
  for (const int fd : silent) close(fd);
  for (int i = 0; i < 3000; ++i) {
    const int fd = Connect(server_->client_port_);
    const linger at_once{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
  }
}

TEST_F(GarbageTest, ARequestByteByByteIsStillARequest) {
  const int fd = Connect(server_->client_port_);
  for (const char byte :
       std::string("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) {
    ASSERT_TRUE(SendAll(fd, std::string_view(&byte, 1)));
  }
  std::string reply(1000, '\0');
  EXPECT_GT(recv(fd, reply.data(), reply.size(), 0), 0);
  EXPECT_THAT(reply, HasSubstr("200 OK"));
  close(fd);
}

TEST_F(GarbageTest, RequestsOverTheLimitsGetEtcdsErrors) {
  auto stub = etcdserverpb::KV::NewStub(
      grpc::CreateChannel(server_->endpoint(), grpc::InsecureChannelCredentials()));
  const auto put = [&](size_t bytes) {
    grpc::ClientContext context;
    etcdserverpb::PutRequest request;
    request.set_key("large");
    request.set_value(std::string(bytes, 'v'));
    etcdserverpb::PutResponse response;
    return stub->Put(&context, request, &response);
  };
  EXPECT_EQ(put(1536 * 1024).error_message(), "etcdserver: request is too large");
  EXPECT_EQ(put(1536 * 1024).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status status = put(3 << 20);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("received message larger than max"));
  grpc::ClientContext context;
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 129; ++i) {
    txn.add_success()->mutable_request_put()->set_key(absl::StrCat("k", i));
  }
  etcdserverpb::TxnResponse response;
  EXPECT_EQ(stub->Txn(&context, txn, &response).error_message(),
            "etcdserver: too many operations in txn request");
}

TEST_F(GarbageTest, StrangersAndGarbledFramesOnThePeerPort) {
  const etcdserverpb::ResponseHeader header = Header();
  rpc::Hello hello;
  hello.cluster_id = header.cluster_id();
  hello.from = raft::NodeId(77);
  hello.to = raft::NodeId(header.member_id());
  rpc::Hello stranger = hello;
  stranger.cluster_id ^= 1;
  EXPECT_THAT(Exchange(server_->peer_port_, rpc::EncodeHello(stranger)), HasSubstr("cluster"));
  stranger = hello;
  stranger.to = raft::NodeId(header.member_id() ^ 1);
  EXPECT_GT(Exchange(server_->peer_port_, rpc::EncodeHello(stranger)).size(), 4u);
  std::string damaged = rpc::EncodeHello(hello);
  damaged[20] ^= 1;
  EXPECT_EQ(Exchange(server_->peer_port_, damaged).find(std::string(4, '\0')), std::string::npos);
  for (const uint32_t length : {0u, 1u, 100u, 1u << 20, 64u << 20, (64u << 20) + 1, ~0u}) {
    for (const char fill : {'\0', 'x', '\xff'}) {
      Exchange(server_->peer_port_, rpc::EncodeHello(hello) + rpc::EncodeU32(length) +
                                        std::string(std::min<size_t>(length, 1 << 20), fill));
    }
  }
  EXPECT_TRUE(Put(server_->endpoint(), "amid", "strangers"));
}

}  // namespace
}  // namespace conclave
