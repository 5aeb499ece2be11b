// The ADS server on a TCP port, as other processes and languages use it: plain gRPC clients with a
// bootstrap and the target `xds:///my-service`.
#include "conclave/discovery/xds/ads_server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/tests/discovery/greeter_backend.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::xds {
namespace {

using conclave::testing::GreeterBackend;
using conclave::testing::WaitFor;
using examples::Greeter;

class AdsServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = AdsServer::Start({.address = "127.0.0.1:0",
                                    .credentials = nullptr,
                                    .catalog = {.open = true, .policy = {}},
                                    .on_interest =
                                        [this](const std::string& cluster, bool wanted) {
                                          absl::MutexLock lock(&mutex_);
                                          heard_.push_back((wanted ? "+" : "-") + cluster);
                                        },
                                    .on_trouble =
                                        [this](const std::string& line) {
                                          absl::MutexLock lock(&mutex_);
                                          trouble_.push_back(line);
                                        }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string Bootstrap() const {
    return R"({"xds_servers":[{"server_uri":"127.0.0.1:)" + std::to_string(server_->port()) +
           R"(","channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],)" +
           R"("node":{"id":"test","locality":{"region":"","zone":"","sub_zone":""}}})";
  }
  std::unique_ptr<Greeter::Stub> Stub(const std::string& service) {
    grpc::ChannelArguments args;
    args.SetString(GRPC_ARG_TEST_ONLY_DO_NOT_USE_IN_PROD_XDS_BOOTSTRAP_CONFIG, Bootstrap());
    return Greeter::NewStub(
        grpc::CreateCustomChannel("xds:///" + service, grpc::InsecureChannelCredentials(), args));
  }
  static std::string Backend(Greeter::Stub& stub) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    examples::GreetReply reply;
    const grpc::Status status = stub.Greet(&context, {}, &reply);
    return status.ok() ? reply.backend() : status.error_message();
  }
  void Set(const std::string& service, const std::vector<std::string>& addresses) {
    server_->SetEndpoints(service, EndpointSet::FromAddresses(addresses, nullptr));
  }
  std::vector<std::string> Heard() {
    absl::MutexLock lock(&mutex_);
    return heard_;
  }

  absl::Mutex mutex_;
  std::vector<std::string> heard_;
  std::vector<std::string> trouble_;
  std::unique_ptr<AdsServer> server_;
};

TEST_F(AdsServerTest, AnyClientFindsAnyServiceAndFollowsIt) {
  GreeterBackend one;
  GreeterBackend two;
  Set("my-service", {one.address()});
  auto stub = Stub("my-service");
  EXPECT_EQ(Backend(*stub), one.address());
  Set("my-service", {two.address()});
  EXPECT_TRUE(WaitFor([&] { return Backend(*stub) == two.address(); }));
}

TEST_F(AdsServerTest, TellsWhichServicesAreWanted) {
  GreeterBackend backend;
  auto first = Stub("a");
  auto second = Stub("a");
  Set("a", {backend.address()});
  EXPECT_EQ(Backend(*first), backend.address());
  EXPECT_EQ(Backend(*second), backend.address());
  EXPECT_THAT(Heard(), ::testing::ElementsAre("+a"));
  first.reset();
  second.reset();
  EXPECT_TRUE(WaitFor([&] { return Heard() == std::vector<std::string>{"+a", "-a"}; }));
}

TEST_F(AdsServerTest, ClientsSurviveARestartOfTheServer) {
  GreeterBackend backend;
  Set("s", {backend.address()});
  auto stub = Stub("s");
  EXPECT_EQ(Backend(*stub), backend.address());
  server_.reset();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Backend(*stub), backend.address());
}

TEST_F(AdsServerTest, TakesManyClientsOnOneThread) {
  GreeterBackend backend;
  Set("s", {backend.address()});
  std::vector<std::unique_ptr<Greeter::Stub>> stubs;
  for (int i = 0; i < 50; ++i) {
    stubs.push_back(Stub("s"));
    EXPECT_EQ(Backend(*stubs.back()), backend.address());
  }
  EXPECT_EQ(server_->stats().streams, 50u);
  EXPECT_EQ(server_->stats().nacks, 0u);
  stubs.clear();
  EXPECT_TRUE(WaitFor([&] { return server_->stats().streams == 0; }));
}

TEST_F(AdsServerTest, AnAddressInUseIsAnError) {
  const auto second = AdsServer::Start({.address = "127.0.0.1:" + std::to_string(server_->port()),
                                        .credentials = nullptr,
                                        .catalog = {},
                                        .on_interest = nullptr,
                                        .on_trouble = nullptr});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(AdsServerTest, PythonFindsAServiceToo) {
  GreeterBackend one;
  GreeterBackend two;
  Set("my-service", {one.address(), two.address()});
  const auto output = conclave::testing::RunCommand(
      {"/usr/bin/env", "GRPC_XDS_BOOTSTRAP_CONFIG=" + Bootstrap(), "/usr/bin/python3", "-c", R"(
try:
    import grpc
except ImportError:
    print("skip"); raise SystemExit
channel = grpc.insecure_channel("xds:///my-service")
greet = channel.unary_unary("/conclave.examples.Greeter/Greet", request_serializer=lambda b: b,
                            response_deserializer=lambda b: b)
answers = set()
for _ in range(200):
    reply = greet(b"\x0a\x06python", timeout=10)
    answers.add(reply[reply.index(b"127.0.0.1"):].decode())
for answer in sorted(answers): print(answer)
)"},
      absl::Seconds(40));
  ASSERT_TRUE(output.ok()) << output.status();
  if (output->find("skip") != std::string::npos) GTEST_SKIP() << "python3-grpcio is not installed";
  EXPECT_THAT(*output, ::testing::HasSubstr(one.address()));
  EXPECT_THAT(*output, ::testing::HasSubstr(two.address()));
}

}  // namespace
}  // namespace conclave::xds
