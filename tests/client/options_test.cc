// What ConnectOptions carries through to the client and the recipes on it.
#include <memory>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/client/client_impl.h"
#include "gtest/gtest.h"
#include "prometheus/registry.h"

namespace conclave {
namespace {

TEST(ConnectOptionsTest, TheUsersSinkGetsEveryLine) {
  std::vector<std::string> lines;
  auto client = Client::Connect(
      {.endpoints = {"127.0.0.1:1"}, .log_sink = [&](LogLevel level, std::string_view line) {
         lines.push_back(std::string(LogLevelName(level)) + " " + std::string(line));
       }});
  ASSERT_TRUE(client.ok()) << client.status();
  client->impl()->Log(LogLevel::kDebug, "one");
  client->impl()->Log(LogLevel::kError, "two");
  EXPECT_EQ(lines, (std::vector<std::string>{"debug one", "error two"}));
}

TEST(ConnectOptionsTest, WithoutASinkWarningsAndErrorsGoToStderrInOneLine) {
  auto client = Client::Connect({.endpoints = {"127.0.0.1:1"}});
  ASSERT_TRUE(client.ok()) << client.status();
  ::testing::internal::CaptureStderr();
  client->impl()->Log(LogLevel::kInfo, "quiet");
  client->impl()->Log(LogLevel::kWarning, "loud");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "conclave: warning: loud\n");
}

TEST(ConnectOptionsTest, TheUsersRegistryIsHandedToTheRecipes) {
  auto registry = std::make_shared<prometheus::Registry>();
  auto client = Client::Connect({.endpoints = {"127.0.0.1:1"}, .metrics = registry});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(client->impl()->metrics(), registry);
  auto without = Client::Connect({.endpoints = {"127.0.0.1:1"}});
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(without->impl()->metrics(), nullptr);
}

TEST(ConnectOptionsTest, WhatCannotBeMeantIsRefused) {
  const std::vector<std::string> there = {"127.0.0.1:1"};
  const std::vector<ConnectOptions> bad = {
      {},
      {.endpoints = {"127.0.0.1"}},
      {.endpoints = std::vector<std::string>(65, "127.0.0.1:1")},
      {.endpoints = there, .request_timeout = absl::ZeroDuration()},
      {.endpoints = there, .attempt_timeout = -absl::Seconds(1)},
      {.endpoints = there, .retry_budget = {.per_second = 0}},
      {.endpoints = there, .retry_budget = {.per_call = -1}},
      {.endpoints = there, .retry_budget = {.burst = 0}},
  };
  for (const ConnectOptions& options : bad) {
    EXPECT_EQ(Client::Connect(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ConnectOptionsTest, AnEndpointGivenTwiceIsOne) {
  auto client = Client::Connect({.endpoints = {"127.0.0.1:1", "http://127.0.0.1:1/"}});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(client->endpoints(), std::vector<std::string>{"127.0.0.1:1"});
}

TEST(SessionOptionsTest, ATtlThatNoLeaseCanHaveIsRefusedAtTheCall) {
  auto client = Client::Connect({.endpoints = {"127.0.0.1:1"}});
  ASSERT_TRUE(client.ok()) << client.status();
  for (const absl::Duration ttl :
       {absl::ZeroDuration(), -absl::Seconds(10), absl::Milliseconds(999), absl::InfiniteDuration(),
        -absl::InfiniteDuration(), absl::Seconds(9'000'000'001)}) {
    const absl::Status session = client->OpenSession({.ttl = ttl}).status();
    EXPECT_EQ(session.code(), absl::StatusCode::kInvalidArgument) << ttl;
    EXPECT_NE(session.message().find("at least 1 s"), std::string_view::npos) << session;
    EXPECT_EQ(client->Grant(ttl).status().code(), absl::StatusCode::kInvalidArgument) << ttl;
  }
}

}  // namespace
}  // namespace conclave
