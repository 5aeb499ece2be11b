// The README's C++ blocks, run in the order in which a reader meets them.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>

#include "conclave/server/app/embedded.h"
#include "readme_blocks.h"

namespace conclave {
namespace {

class GreeterService final : public examples::Greeter::Service {
  grpc::Status Greet(grpc::ServerContext*, const examples::GreetRequest* request,
                     examples::GreetReply* reply) override {
    reply->set_message("hello, " + request->name());
    return grpc::Status::OK;
  }
};

class Readme : public testing::Test {
 protected:
  void SetUp() override {
    auto server = EmbeddedServer::Start({});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = Client::Connect({.endpoints = {server_->client_endpoint()}});
    ASSERT_TRUE(client.ok()) << client.status();
    client_.emplace(*std::move(client));
  }

  std::unique_ptr<EmbeddedServer> server_;
  std::optional<Client> client_;
};

TEST_F(Readme, RegistersAndCallsByName) {
  GreeterService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> greeter = builder.BuildAndStart();
  const std::string address = "127.0.0.1:" + std::to_string(port);
  EXPECT_TRUE(block_1::Serve(server_->client_endpoint(), address).ok());

  // The block's registration has gone with its handle; this one stays for the call.
  Registry registry(*client_);
  auto registration = registry.Register({.service = "my-service", .address = address});
  ASSERT_TRUE(registration.ok()) << registration.status();
  auto said = block_2::Call(*client_);
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_EQ(*said, "hello, world");
}

TEST_F(Readme, TakesALockAndWritesUnderIt) {
  const absl::Status status = block_3::Rebuild(*client_);
  EXPECT_TRUE(status.ok()) << status;
  auto state = client_->Get("state");
  ASSERT_TRUE(state.ok() && state->has_value());
  EXPECT_EQ((*state)->value, "rebuilt");
}

TEST_F(Readme, Leads) {
  const absl::Status status = block_4::Lead(*client_, "127.0.0.1:1");
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace conclave
