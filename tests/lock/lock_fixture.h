// LockTest: what the tests of all kinds of locks need: a client of a cluster that all tests of the
// process share, sessions, and a name of the test's own.
#pragma once

#include <future>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave::testing {

class LockTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    name_ = absl::StrCat("locks/", ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  Client& client() { return *client_; }
  Session NewSession(absl::Duration ttl = absl::Seconds(20)) {
    auto session = client().OpenSession({.ttl = ttl}, {.timeout = absl::Seconds(20)});
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : Session();
  }
  // How many keys there are under the name.
  int64_t Keys(const std::string& name) {
    auto range = client().Range(Prefix(name), {.count_only = true}, {.timeout = absl::Seconds(10)});
    EXPECT_TRUE(range.ok()) << range.status();
    return range.ok() ? range->count : -1;
  }
  [[nodiscard]] bool KeysBecome(const std::string& name, int64_t count) {
    return WaitFor([&] { return Keys(name) == count; }, absl::Seconds(20));
  }

  template <typename Work>
  static auto Later(Work work) {
    return std::async(std::launch::async, std::move(work));
  }
  template <typename Result>
  static bool Ready(std::future<Result>& future) {
    return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }

  TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string name_;
};

// For what must come soon, on a loaded machine as well.
inline CallOptions Soon() { return {.timeout = absl::Seconds(30)}; }

}  // namespace conclave::testing
