// What the tests of recipes share: a cluster of all tests, a client, sessions,
// a name of the test's own.
#pragma once

#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave::testing {

class RecipeTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    name_ = absl::StrCat(info->test_suite_name(), ".", info->name());
    name_ = "recipes/" + name_.substr(name_.find('/') + 1);
    for (char& c : name_) {
      if (c == '/') c = '.';
    }
  }
  Client& client() { return *client_; }
  Session NewSession(absl::Duration ttl = absl::Seconds(10)) {
    auto session = client().OpenSession({.ttl = ttl});
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : Session();
  }
  int64_t Count(const std::string& prefix) {
    auto range = client().Range(Prefix(prefix), {.count_only = true});
    return range.ok() ? range->count : -1;
  }

  TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string name_;
};

template <typename Function>
auto InThread(Function function) {
  return std::async(std::launch::async, std::move(function));
}

inline CallOptions Soon() { return {.timeout = absl::Seconds(20)}; }
inline CallOptions AMoment() { return {.timeout = absl::Milliseconds(150)}; }

}  // namespace conclave::testing
