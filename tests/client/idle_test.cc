// A connection on which nothing happens but pings: no server may take offence. gRPC's servers
// answer the third ping that comes too soon with GOAWAY (too_many_pings), so this idles for more
// than three.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::Collector;
using testing::ServerKind;
using testing::ServerUnderTest;
using testing::TestCluster;
using testing::WaitFor;

constexpr absl::Duration kPings = absl::Seconds(35);  // pings come every 10 s

struct Idler {
  std::unique_ptr<TestCluster> cluster;
  Collector seen;
  std::optional<Client> client;
  std::optional<Watch> watch;
};

TEST(IdleTest, PingsOnASilentWatchAngerNoServer) {
  std::vector<std::unique_ptr<Idler>> idlers;
  for (const ServerKind kind : {ServerKind::kEtcd, ServerKind::kConclave}) {
    if (auto binary = testing::ServerBinary(kind); !binary.ok()) {
      GTEST_SKIP() << binary.status().message();
    }
    auto idler = std::make_unique<Idler>();
    auto cluster = TestCluster::Start(ServerUnderTest{.kind = kind, .members = 1});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    idler->cluster = *std::move(cluster);
    // The least that is allowed; less is raised to it.
    auto client = Client::Connect({.endpoints = idler->cluster->endpoints(),
                                   .keepalive_time = absl::Seconds(1),
                                   .watch_silence = absl::Minutes(5)});
    ASSERT_TRUE(client.ok()) << client.status();
    idler->client = *std::move(client);
    idler->watch = idler->client->Watch("k", {.report_connection = true}, idler->seen.Callback());
    ASSERT_TRUE(WaitFor([&] { return idler->watch->lag().connected; }));
    idlers.push_back(std::move(idler));
  }
  EXPECT_FALSE(WaitFor(
      [&] {
        for (const auto& idler : idlers) {
          if (!idler->watch->lag().connected) return true;
        }
        return false;
      },
      kPings));
  for (const auto& idler : idlers) {
    EXPECT_TRUE(idler->seen.batches().empty()) << "a connection was lost";
    ASSERT_TRUE(idler->client->Put("k", "1").ok());
    EXPECT_TRUE(idler->seen.WaitForEvents(1));
  }
}

}  // namespace
}  // namespace conclave
