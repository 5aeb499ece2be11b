// The door's own affairs: which services it watches, for how long, and how many; over etcd as over
// our server, for it is a client like any other.
#include "conclave/server/recipes/xds_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/tests/discovery/greeter_backend.h"
#include "conclave/tests/recipes/xds_client.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::recipes {
namespace {

using conclave::testing::GreeterBackend;
using conclave::testing::TestCluster;
using conclave::testing::WaitFor;
using conclave::testing::XdsClient;
using ::testing::HasSubstr;

class XdsDoorTest : public ::testing::TestWithParam<conclave::testing::ServerUnderTest> {
 protected:
  void Open(const TestCluster& cluster, XdsDoor::Options options) {
    if (options.listen.empty()) options.listen = {"127.0.0.1:0"};
    options.store = cluster.endpoint(0);
    options.log = [this](LogLevel, std::string_view line) {
      std::lock_guard lock(mutex_);
      absl::StrAppend(&log_, std::string(line), "\n");
    };
    auto door = XdsDoor::Start(std::move(options));
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
    auto client = Client::Connect({.endpoints = {cluster.endpoint(0)}});
    ASSERT_TRUE(client.ok()) << client.status();
    client_.emplace(*std::move(client));
  }
  void Register(const std::string& service, const std::string& address) {
    const auto put = client_->Put(absl::StrCat(service, "/", address),
                                  absl::StrCat(R"({"Addr":")", address, R"("})"));
    ASSERT_TRUE(put.ok()) << put.status();
  }
  std::unique_ptr<XdsClient> Dial(const std::string& service, size_t port = 0) {
    return std::make_unique<XdsClient>(absl::StrCat("127.0.0.1:", door_->ports()[port]), service);
  }
  std::string log() {
    std::lock_guard lock(mutex_);
    return log_;
  }

  std::mutex mutex_;
  std::string log_;
  std::optional<Client> client_;
  std::unique_ptr<XdsDoor> door_;
};

TEST_P(XdsDoorTest, WatchesWhatIsWantedAndLetsItGoAfterAWhile) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {.linger = absl::Milliseconds(200)});
  GreeterBackend backend;
  Register("door-linger", backend.address());
  auto first = Dial("door-linger");
  auto second = Dial("door-linger");
  EXPECT_EQ(first->Call(), backend.address());
  EXPECT_EQ(second->Call(), backend.address());
  EXPECT_EQ(door_->watched(), 1u);
  const XdsDoor::Figures figures = door_->figures();
  EXPECT_EQ(figures.watched, 1u);
  EXPECT_EQ(figures.waiting, 0u);
  EXPECT_GE(figures.streams, 1u);
  EXPECT_GE(figures.responses, 3u) << "a listener, a cluster, its endpoints";
  EXPECT_GE(figures.acks, 2u);
  EXPECT_EQ(figures.nacks, 0u);
  first.reset();
  EXPECT_EQ(second->Call(), backend.address());
  second.reset();
  EXPECT_TRUE(WaitFor([&] { return door_->watched() == 0; }));
  EXPECT_EQ(Dial("door-linger")->Call(), backend.address());  // and watches it again
}

TEST_P(XdsDoorTest, WhoComesBackSoonFindsTheWatchStillThere) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {.linger = absl::Hours(1)});
  GreeterBackend backend;
  Register("door-back", backend.address());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Dial("door-back")->Call(), backend.address());
    EXPECT_EQ(door_->watched(), 1u);
  }
}

TEST_P(XdsDoorTest, WhatFindsNoPlaceWaitsForOne) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {.linger = absl::Hours(1), .names_max = 1});
  GreeterBackend backend;
  Register("door-a", backend.address());
  Register("door-b", backend.address());
  auto first = Dial("door-a");
  EXPECT_EQ(first->Call(), backend.address());
  auto second = Dial("door-b");
  EXPECT_THAT(second->Call(absl::Milliseconds(500)), HasSubstr("failed (4)"));
  EXPECT_TRUE(WaitFor([&] { return log().find("1 more have to wait") != std::string::npos; }));
  first.reset();  // "a" is idle now, and idle ones make room
  EXPECT_TRUE(WaitFor([&] { return second->Call() == backend.address(); }));
  EXPECT_EQ(door_->watched(), 1u);
}

TEST_P(XdsDoorTest, AllItsAddressesServeTheSame) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {.listen = {"127.0.0.1:0", "127.0.0.1:0"}, .linger = absl::ZeroDuration()});
  GreeterBackend one;
  GreeterBackend two;
  Register("door-two", one.address());
  auto first = Dial("door-two", 0);
  auto second = Dial("door-two", 1);
  EXPECT_EQ(first->Call(), one.address());
  EXPECT_EQ(second->Call(), one.address());
  EXPECT_EQ(door_->watched(), 1u);
  const XdsDoor::Figures figures = door_->figures();
  EXPECT_EQ(figures.watched, 1u);
  EXPECT_EQ(figures.waiting, 0u);
  EXPECT_GE(figures.streams, 1u);
  EXPECT_GE(figures.responses, 3u) << "a listener, a cluster, its endpoints";
  EXPECT_GE(figures.acks, 2u);
  EXPECT_EQ(figures.nacks, 0u);
  first.reset();  // the second still wants it
  Register("door-two", two.address());
  EXPECT_TRUE(WaitFor([&] {
    return second->Answers() == std::set<std::string>{one.address(), two.address()};
  }));
}

TEST_P(XdsDoorTest, WhatCannotBeAServicesNameHasNoEndpoints) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {});
  EXPECT_THAT(Dial("no//service")->Call(absl::Seconds(8)), HasSubstr("failed (14)"));
}

TEST_P(XdsDoorTest, ABadInstanceCostsNoOther) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {});
  GreeterBackend backend;
  ASSERT_TRUE(client_->Put("door-bad/1", R"({"Addr":"999.1.1.1:80"})").ok());
  ASSERT_TRUE(client_->Put("door-bad/2", "not JSON").ok());
  ASSERT_TRUE(client_
                  ->Put("door-bad/3", absl::StrCat(R"({"Addr":"localhost:)",
                                                   backend.address().substr(10), R"("})"))
                  .ok());
  auto stub = Dial("door-bad");
  EXPECT_TRUE(WaitFor([&] { return stub->Call() == backend.address(); }));
  EXPECT_THAT(log(), HasSubstr("999.1.1.1"));
}

TEST_P(XdsDoorTest, EndsWithClientsOnIt) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Open(*cluster, {});
  GreeterBackend backend;
  Register("door-end", backend.address());
  auto stub = Dial("door-end");
  EXPECT_EQ(stub->Call(), backend.address());
  door_.reset();
  EXPECT_EQ(stub->Call(), backend.address());
}

INSTANTIATE_TEST_SUITE_P(Servers, XdsDoorTest,
                         ::testing::ValuesIn(conclave::testing::SingleServers()),
                         conclave::testing::ServerName);

}  // namespace
}  // namespace conclave::recipes
