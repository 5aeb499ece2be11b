// What the tests of discovery have in common: clients, services of their own, instances.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "conclave/client/client.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

class ServiceFixture : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override { ++run_; }

  static Client Connect(const TestCluster& cluster) {
    auto client = Client::Connect({.endpoints = cluster.endpoints()});
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  // The service's name: of this test and this run of it, since runs share a cluster.
  static std::string Name(const std::string& suffix = "") {
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    return test.substr(0, test.find('/')) + "." + std::to_string(run_) + suffix;
  }
  static void PutInstance(const Client& client, const std::string& service, Instance instance) {
    instance.service = service;
    const auto put =
        client.Put(InstanceKey(service, instance.address), EncodeNamingValue(instance));
    ASSERT_TRUE(put.ok()) << put.status();
  }
  static void DeleteInstance(const Client& client, const std::string& service,
                             const std::string& address) {
    ASSERT_TRUE(client.Delete(InstanceKey(service, address)).ok());
  }

  static inline int run_ = 0;  // counts them
};

}  // namespace conclave::testing
