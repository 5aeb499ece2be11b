// The client port of a real server, spoken to with raw gRPC: every method of the protocol gets an
// answer or a clear error, whatever bytes it is sent.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/server/app/embedded.h"
#include "conclave/server/rpc/method_table.h"

namespace conclave::rpc {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class ClientPortTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto server = EmbeddedServer::Start({});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  static void TearDownTestSuite() { server_.reset(); }

  ClientPortTest() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(server_->client_endpoint(),
                                         grpc::InsecureChannelCredentials(), arguments);
  }

  // One call with raw bytes, as if the method were unary; the reply's bytes in *reply.
  grpc::Status CallRaw(const std::string& path, const std::string& bytes,
                       std::string* reply = nullptr) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = stub.PrepareUnaryCall(&context, path, request, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    if (status.ok() && reply != nullptr) {
      std::vector<grpc::Slice> slices;
      EXPECT_TRUE(response.Dump(&slices).ok());
      for (const grpc::Slice& part : slices) {
        reply->append(reinterpret_cast<const char*>(part.begin()), part.size());
      }
    }
    return status;
  }

  static std::unique_ptr<EmbeddedServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

std::unique_ptr<EmbeddedServer> ClientPortTest::server_;

TEST_F(ClientPortTest, EveryUnaryMethodIsServed) {
  int served = 0;
  for (const MethodEntry& entry : AllMethods()) {
    if (entry.served != Served::kNodeUnary) continue;
    ++served;
    const grpc::Status status = CallRaw(entry.path, "");
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << entry.path;
  }
  EXPECT_GT(served, 35);
}

TEST_F(ClientPortTest, WhatDoesNotExistSaysWhichPart) {
  grpc::Status status = CallRaw("/etcdserverpb.KV/Rnage", "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "unknown method Rnage for service etcdserverpb.KV");
  status = CallRaw("/no.such.Service/Method", "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "unknown service no.such.Service");
}

// Bytes that are no message of any kind: an error for that call, and the server lives.
TEST_F(ClientPortTest, GarbageIsAnErrorOfItsCall) {
  const std::string garbage[] = {std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11),
                                 std::string("\x0a\xff\xff\xff\x0f", 5), std::string("\x0b", 1),
                                 std::string("\x0a\x05"
                                             "ab",
                                             4)};
  for (const MethodEntry& entry : AllMethods()) {
    if (entry.served != Served::kNodeUnary) continue;
    for (const std::string& bytes : garbage) {
      const grpc::Status status = CallRaw(entry.path, bytes);
      EXPECT_FALSE(status.ok()) << entry.path;
      EXPECT_FALSE(status.error_message().empty()) << entry.path;
      EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << entry.path;
    }
  }
  EXPECT_TRUE(CallRaw("/etcdserverpb.KV/Put", std::string("\x0a\x01k\x12\x01v", 6)).ok());
}

TEST_F(ClientPortTest, GarbageOnAStreamEndsThatStream) {
  for (const char* path : {"/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"}) {
    const grpc::Status status = CallRaw(path, std::string("\xff\xff\xff\xff", 4));
    EXPECT_FALSE(status.ok()) << path;
    EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << path;
  }
}

TEST_F(ClientPortTest, EveryAnswerCarriesTheHeader) {
  auto kv = etcdserverpb::KV::NewStub(channel_);
  grpc::ClientContext context;
  etcdserverpb::PutRequest request;
  request.set_key("header");
  etcdserverpb::PutResponse response;
  ASSERT_TRUE(kv->Put(&context, request, &response).ok());
  EXPECT_NE(response.header().cluster_id(), 0u);
  EXPECT_NE(response.header().member_id(), 0u);
  EXPECT_NE(response.header().raft_term(), 0u);
  EXPECT_GT(response.header().revision(), 1);
}

TEST_F(ClientPortTest, ARequestOverTheLimitGetsEtcdsError) {
  auto kv = etcdserverpb::KV::NewStub(channel_);
  etcdserverpb::PutRequest request;
  etcdserverpb::PutResponse response;
  request.set_key("large");
  request.set_value(std::string(1600 * 1024, 'v'));  // above 1.5 MiB, below what gRPC takes
  grpc::ClientContext first;
  grpc::Status status = kv->Put(&first, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "etcdserver: request is too large");

  request.set_value(std::string(3 << 20, 'v'));
  grpc::ClientContext second;
  status = kv->Put(&second, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("eceived message larger than max"));

  request.set_value("small");
  grpc::ClientContext third;
  EXPECT_TRUE(kv->Put(&third, request, &response).ok());
}

TEST_F(ClientPortTest, LargeValuesComeBackWhole) {
  auto kv = etcdserverpb::KV::NewStub(channel_);
  for (const size_t size : {0u, 1u, 4000u, 4096u, 70'000u, 1'000'000u}) {
    std::string value(size, '\0');
    for (size_t i = 0; i < size; ++i) value[i] = static_cast<char>(i * 31);
    etcdserverpb::PutRequest put;
    put.set_key("whole");
    put.set_value(value);
    etcdserverpb::PutResponse put_response;
    grpc::ClientContext put_context;
    ASSERT_TRUE(kv->Put(&put_context, put, &put_response).ok());
    etcdserverpb::RangeRequest range;
    range.set_key("whole");
    etcdserverpb::RangeResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(kv->Range(&context, range, &response).ok());
    ASSERT_EQ(response.kvs_size(), 1);
    EXPECT_EQ(response.kvs(0).value(), value) << size;
  }
}

TEST_F(ClientPortTest, HealthSpeaksForTheServerAsAWhole) {
  std::string reply;
  EXPECT_TRUE(CallRaw("/grpc.health.v1.Health/Check", "", &reply).ok());
  EXPECT_EQ(reply, "\x08\x01");  // SERVING
  const grpc::Status status = CallRaw("/grpc.health.v1.Health/Check", std::string("\x0a\x01x", 3));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "unknown service");

  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto stream = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  auto step = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  ASSERT_TRUE(step());
  stream->WriteLast(grpc::ByteBuffer(std::make_unique<grpc::Slice>("").get(), 1),
                    grpc::WriteOptions(), nullptr);
  ASSERT_TRUE(step());
  grpc::ByteBuffer first;
  stream->Read(&first, nullptr);
  ASSERT_TRUE(step());
  EXPECT_EQ(first.Length(), 2u);
  context.TryCancel();
  grpc::Status end;
  stream->Finish(&end, nullptr);
  step();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::CANCELLED);
}

// A thousand messages in one turn of the core: all arrive, in order, on every stream.
TEST_F(ClientPortTest, ManyWatchersOfOneStreamAllHear) {
  auto watch = etcdserverpb::Watch::NewStub(channel_);
  auto kv = etcdserverpb::KV::NewStub(channel_);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(30));
  auto stream = watch->Watch(&context);
  constexpr int kWatchers = 1000;
  etcdserverpb::WatchRequest create;
  create.mutable_create_request()->set_key("fan");
  for (int i = 0; i < kWatchers; ++i) ASSERT_TRUE(stream->Write(create));
  etcdserverpb::WatchResponse response;
  for (int i = 0; i < kWatchers; ++i) {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_TRUE(response.created());
    EXPECT_EQ(response.watch_id(), i);
  }
  for (int round = 0; round < 3; ++round) {
    etcdserverpb::PutRequest put;
    put.set_key("fan");
    put.set_value(std::string(300, 'x'));
    etcdserverpb::PutResponse ignored;
    grpc::ClientContext put_context;
    ASSERT_TRUE(kv->Put(&put_context, put, &ignored).ok());
    std::vector<bool> heard(kWatchers);
    for (int i = 0; i < kWatchers; ++i) {
      ASSERT_TRUE(stream->Read(&response));
      ASSERT_EQ(response.events_size(), 1);
      heard[static_cast<size_t>(response.watch_id())] = true;
    }
    EXPECT_THAT(heard, testing::Each(true));
  }
  context.TryCancel();
  stream->Finish();
}

// A client that reads nothing must not make the server hold everything, and must not hold up
// others.
TEST_F(ClientPortTest, AClientThatDoesNotReadHoldsUpNobody) {
  auto watch = etcdserverpb::Watch::NewStub(channel_);
  auto kv = etcdserverpb::KV::NewStub(channel_);
  grpc::ClientContext context;
  auto stream = watch->Watch(&context);
  etcdserverpb::WatchRequest create;
  create.mutable_create_request()->set_key("unread");
  ASSERT_TRUE(stream->Write(create));
  etcdserverpb::WatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  constexpr int kPuts = 60;
  for (int i = 0; i < kPuts; ++i) {  // 60 MB, far over all buffers
    etcdserverpb::PutRequest put;
    put.set_key("unread");
    put.set_value(std::string(1 << 20, static_cast<char>('a' + i % 26)));
    etcdserverpb::PutResponse ignored;
    grpc::ClientContext put_context;
    put_context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    ASSERT_TRUE(kv->Put(&put_context, put, &ignored).ok()) << i;
  }
  // Now it reads: nothing is lost.
  int events = 0;
  while (events < kPuts && stream->Read(&response)) events += response.events_size();
  EXPECT_EQ(events, kPuts);
  context.TryCancel();
  stream->Finish();
}

TEST_F(ClientPortTest, ACallThatIsCancelledLeavesNothingBehind) {
  auto lease = etcdserverpb::Lease::NewStub(channel_);
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    auto stream = lease->LeaseKeepAlive(&context);
    etcdserverpb::LeaseKeepAliveRequest request;
    request.set_id(i + 1);
    stream->Write(request);
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(CallRaw("/etcdserverpb.KV/Put", std::string("\x0a\x01k", 3)).ok());
}

// Connections that begin as HTTP/2 and go on as anything: frames of every type with random flags,
// streams, lengths and content. None of them may hurt the server or another client.
TEST_F(ClientPortTest, RandomFramesHurtNobody) {
  Prng random(20261121);
  const std::string endpoint = server_->client_endpoint();
  const int port = std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
  for (int connection = 0; connection < 300; ++connection) {
    std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if (random.Chance(9, 10)) bytes += std::string("\0\0\0\4\0\0\0\0\0", 9);  // SETTINGS
    const int frames = static_cast<int>(random.Below(20));
    for (int i = 0; i < frames; ++i) {
      std::string content;
      const bool is_request = random.Chance(1, 2);
      if (is_request) {
        // A header block that is one: POST, a path by name, and gRPC.
        const std::string path = AllMethods()[random.Below(AllMethods().size())].path;
        content = std::string("\x83\x86\x04", 3) + static_cast<char>(path.size()) + path +
                  std::string("\x0f\x10\x10", 3) + "application/grpc";
      } else {
        content.resize(random.Below(64));
        for (char& c : content) c = static_cast<char>(random.Next());
      }
      const auto stream = static_cast<uint32_t>(random.Below(12));
      bytes += std::string(1, '\0') + static_cast<char>(content.size() >> 8) +
               static_cast<char>(content.size());
      bytes += is_request ? '\x01' : static_cast<char>(random.Below(11));
      bytes +=
          is_request ? static_cast<char>(4 | random.Below(2)) : static_cast<char>(random.Next());
      bytes += std::string(3, '\0') + static_cast<char>(stream) + content;
    }
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    if (random.Chance(1, 2)) {
      char ignored[256];
      [[maybe_unused]] const ssize_t got = recv(fd, ignored, sizeof ignored, 0);
    }
    close(fd);
  }
  EXPECT_TRUE(CallRaw("/etcdserverpb.KV/Put", std::string("\x0a\x01k", 3)).ok());
}

TEST(RejectMessageTest, TellsWhatIsMissing) {
  EXPECT_EQ(RejectMessage("/v3lockpb.Lock/Lock"),
            "conclave: v3lockpb.Lock/Lock is not served here");
  EXPECT_EQ(RejectMessage(""), "unknown service ");
  EXPECT_EQ(RejectMessage("nonsense"), "unknown service nonsense");
  EXPECT_EQ(RejectMessage("/"), "unknown service ");
  EXPECT_EQ(RejectMessage("//"), "unknown service ");
  EXPECT_EQ(RejectMessage("/nonsense"), "unknown service nonsense");
  EXPECT_EQ(RejectMessage("/etcdserverpb.KV"), "unknown method  for service etcdserverpb.KV");
  EXPECT_EQ(RejectMessage("/etcdserverpb.KV/Nonsense"),
            "unknown method Nonsense for service etcdserverpb.KV");
}

TEST(MethodTableTest, HoldsEveryMethodOfTheProtocolOnce) {
  for (const MethodEntry& entry : AllMethods()) EXPECT_EQ(FindMethod(entry.path), &entry);
  EXPECT_EQ(AllMethods().size(), 42u + 2 + 5 + 2);
}

}  // namespace
}  // namespace conclave::rpc
