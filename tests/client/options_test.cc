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

}  // namespace
}  // namespace conclave
