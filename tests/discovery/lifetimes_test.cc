// Handles of every kind, made and dropped in random order, from threads and callbacks: a thousand
// short lives. What it is after shows under the sanitizers; without them, that nothing hangs.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/discovery/channel.h"
#include "conclave/discovery/discovery.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using testing::ServerUnderTest;

class LifetimesTest : public ::testing::TestWithParam<ServerUnderTest> {};

// All handles of one life; any of them may be absent.
struct Life {
  std::optional<Client> client;
  std::optional<Discovery> discovery;
  std::vector<Service> services;
  std::vector<Subscription> subscriptions;
  std::vector<SnapshotReader> readers;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
};

class Player {
 public:
  Player(uint32_t seed, std::vector<std::string> endpoints)
      : random_(seed), endpoints_(std::move(endpoints)) {}

  void Live() {
    Life life;
    auto client = Client::Connect({.endpoints = endpoints_});
    ASSERT_TRUE(client.ok()) << client.status();
    life.client = *client;
    life.discovery.emplace(*std::move(client));
    for (int left = Below(8) + 1; left > 0; --left) Make(life);
    if (Below(2) == 0) Change(life);
    End(life);
  }

 private:
  int Below(int bound) { return static_cast<int>(random_() % static_cast<uint32_t>(bound)); }
  std::string Name() { return "lives-" + std::to_string(Below(3)); }
  ServiceFilter Filter() {
    if (Below(2) == 0) return {};
    return {.prefer_zone = "zone-" + std::to_string(Below(2))};
  }

  void Make(Life& life) {
    switch (Below(4)) {
      case 0: {
        auto service = life.discovery->Watch(Name(), Filter());
        ASSERT_TRUE(service.ok()) << service.status();
        life.services.push_back(*std::move(service));
        return;
      }
      case 1: {
        if (life.services.empty()) return;
        const Service& service =
            life.services[static_cast<size_t>(Below(static_cast<int>(life.services.size())))];
        life.subscriptions.push_back(
            service.Subscribe([this](const Snapshot& now, const Delta& delta) {
              heard_ += now.instances().size() + delta.added.size();
            }));
        return;
      }
      case 2: {
        if (life.services.empty()) return;
        life.readers.emplace_back(life.services.back());
        heard_ += life.readers.back().Read().instances().size();
        return;
      }
      default: {
        auto channel = Dial(*life.discovery, Name(), grpc::InsecureChannelCredentials(),
                            {.filter = Filter(), .weighted = Below(2) == 0});
        ASSERT_TRUE(channel.ok()) << channel.status();
        life.channels.push_back(*std::move(channel));
        return;
      }
    }
  }

  void Change(Life& life) {
    const std::string name = Name();
    const std::string address = "127.0.0.1:" + std::to_string(1 + Below(5));
    life.client->PutAsync({.key = InstanceKey(name, address),
                           .value = EncodeNamingValue(
                               {.address = address, .zone = "zone-" + std::to_string(Below(2))})},
                          {}, [](absl::StatusOr<PutResult>) {});
  }

  // Drops everything, in an order of its own.
  void End(Life& life) {
    std::vector<int> order = {0, 1, 2, 3, 4, 5};
    std::shuffle(order.begin(), order.end(), random_);
    for (const int kind : order) {
      if (kind == 0) life.client.reset();
      if (kind == 1) life.discovery.reset();
      if (kind == 2) life.services.clear();
      if (kind == 3) life.subscriptions.clear();
      if (kind == 4) life.readers.clear();
      if (kind == 5) life.channels.clear();
    }
  }

  std::mt19937 random_;
  const std::vector<std::string> endpoints_;
  std::atomic<size_t> heard_ = 0;
};

TEST_P(LifetimesTest, AThousandLivesEndInAnyOrder) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  constexpr int kThreads = 2;
  constexpr int kLives = 500;
  std::atomic<int> lived = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Player player(static_cast<uint32_t>(thread + 1), cluster->endpoints());
      for (int i = 0; i < kLives && !::testing::Test::HasFatalFailure(); ++i) {
        player.Live();
        ++lived;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(lived, kThreads * kLives);
}

INSTANTIATE_TEST_SUITE_P(Servers, LifetimesTest, ::testing::ValuesIn(testing::SingleServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
