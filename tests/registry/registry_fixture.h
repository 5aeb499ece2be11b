// What the tests of registration share: a cluster, a client, a service named after the test, and a
// memory of the states that a registration went through.
#pragma once

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "conclave/registry/registry.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave::testing {

inline constexpr absl::Duration kLong = absl::Seconds(20);

// The states that a registration went through.
class States {
 public:
  absl::AnyInvocable<void(RegState, const absl::Status&)> Callback() {
    return [this](RegState state, const absl::Status& why) {
      std::lock_guard lock(mutex_);
      states_.push_back(state);
      last_ = why;
    };
  }
  bool Had(RegState state) const {
    std::lock_guard lock(mutex_);
    return std::find(states_.begin(), states_.end(), state) != states_.end();
  }
  absl::Status last() const {
    std::lock_guard lock(mutex_);
    return last_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<RegState> states_;
  absl::Status last_;
};

class RegistryTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    Connect(*cluster);
    service_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    service_ = service_.substr(0, service_.find('/'));
  }
  void Connect(const TestCluster& cluster) {
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster.endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  Client& client() { return *client_; }
  std::optional<KeyValue> Stored(const std::string& address) {
    auto kv = client().Get(InstanceKey(service_, address));
    EXPECT_TRUE(kv.ok()) << kv.status();
    return kv.ok() ? *kv : std::nullopt;
  }
  // With a registry of its own.
  Registration MustRegister(Instance instance, RegistrationOptions options = {}) {
    return MustRegister(Registry(client()), std::move(instance), std::move(options));
  }
  Registration MustRegister(Registry registry, Instance instance,
                            RegistrationOptions options = {}) {
    instance.service = service_;
    auto registration = registry.Register(std::move(instance), std::move(options));
    EXPECT_TRUE(registration.ok()) << registration.status();
    return registration.ok() ? *std::move(registration) : Registration();
  }

  TestCluster* cluster_ = nullptr;
  std::optional<Client> client_;
  std::string service_;
};

}  // namespace conclave::testing
