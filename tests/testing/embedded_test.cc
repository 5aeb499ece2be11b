// Servers inside this process, on the machine's clock: EmbeddedServer in memory, EmbeddedCluster.
#include "conclave/server/app/embedded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>

#include "conclave/testing/embedded_cluster.h"
#include "conclave/tests/support/authority.h"

namespace conclave::testing {
namespace {

Client ConnectTo(const std::string& endpoint) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = {endpoint}});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

TEST(EmbeddedServerTest, InMemoryServesAndForgets) {
  for (int life = 0; life < 2; ++life) {
    auto server = EmbeddedServer::Start({.in_memory = true});
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_EQ((*server)->data_dir(), "");
    Client client = ConnectTo((*server)->client_endpoint());
    absl::StatusOr<std::optional<KeyValue>> got = client.Get("a");
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_FALSE(got->has_value());
    EXPECT_TRUE(client.Put("a", "1").ok());
  }
}

TEST(EmbeddedServerTest, SpeaksTlsIfItHasACertificate) {
  const std::string directory = std::filesystem::path(::testing::TempDir()) /
                                ("conclave-embedded-" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  {
    Authority authority(directory, "ca");
    const Authority::Files own = authority.Issue({.name = "server"});
    const Authority::Files alice = authority.Issue({.name = "alice"});
    EXPECT_EQ(EmbeddedServer::Start({.in_memory = true, .tls_cert_file = own.cert}).status().code(),
              absl::StatusCode::kInvalidArgument);
    auto server = EmbeddedServer::Start({.in_memory = true,
                                         .tls_cert_file = own.cert,
                                         .tls_key_file = own.key,
                                         .tls_ca_file = authority.ca_file(),
                                         .tls_client_cert_auth = true});
    ASSERT_TRUE(server.ok()) << server.status();
    const std::string endpoint = (*server)->client_endpoint();
    EXPECT_EQ(endpoint.substr(0, 8), "https://");
    const auto put = [&](const Authority::Files& shown) {
      absl::StatusOr<Client> client = Client::Connect(
          {.endpoints = {endpoint},
           .tls = TlsOptions{
               .ca_file = authority.ca_file(), .cert_file = shown.cert, .key_file = shown.key}});
      EXPECT_TRUE(client.ok()) << client.status();
      return client->Put("a", "1", {}, {.timeout = absl::Seconds(shown.cert.empty() ? 1 : 10)})
          .status();
    };
    EXPECT_TRUE(put(alice).ok()) << put(alice);
    EXPECT_FALSE(put({}).ok());
  }
  std::filesystem::remove_all(directory);
}

TEST(EmbeddedServerTest, InMemoryTakesManySnapshotsOfItsLog) {
  auto server = EmbeddedServer::Start({.in_memory = true});
  ASSERT_TRUE(server.ok()) << server.status();
  Client client = ConnectTo((*server)->client_endpoint());
  // More than twice the log that is kept in memory.
  const std::string value(512 << 10, 'x');
  for (int i = 0; i < 40; ++i) {
    absl::StatusOr<PutResult> put = client.Put("big", value + std::to_string(i));
    ASSERT_TRUE(put.ok()) << put.status();
  }
  absl::StatusOr<std::optional<KeyValue>> got = client.Get("big");
  ASSERT_TRUE(got.ok() && got->has_value());
  EXPECT_EQ((*got)->value, value + "39");
}

TEST(EmbeddedServerTest, ItsNameAndQuotaAreWhatTheUserSays) {
  auto server = EmbeddedServer::Start({.in_memory = true, .name = "mine", .quota_bytes = 1 << 20});
  ASSERT_TRUE(server.ok()) << server.status();
  Client client = ConnectTo((*server)->client_endpoint());
  absl::StatusOr<std::vector<Member>> members = client.MemberList();
  ASSERT_TRUE(members.ok());
  ASSERT_EQ(members->size(), 1u);
  EXPECT_EQ(members->front().name, "mine");
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    status = client.Put("k" + std::to_string(i), std::string(100 << 10, 'x')).status();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(EmbeddedServerTest, ADirectoryOutlivesTheServer) {
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("embedded_test." + std::to_string(getpid()));
  for (int life = 0; life < 2; ++life) {
    auto server = EmbeddedServer::Start({.data_dir = directory.string()});
    ASSERT_TRUE(server.ok()) << server.status();
    Client client = ConnectTo((*server)->client_endpoint());
    absl::StatusOr<std::optional<KeyValue>> got = client.Get("a");
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->has_value(), life == 1);
    EXPECT_TRUE(client.Put("a", "1").ok());
  }
  std::filesystem::remove_all(directory);
}

TEST(EmbeddedServerTest, RefusesOptionsThatExcludeEachOther) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      EmbeddedServer::Start({.data_dir = "/nowhere", .in_memory = true}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(EmbeddedServer::Start({.name = ""}).status()));
}

TEST(EmbeddedClusterTest, GoesOnWithoutItsLeaderAndTakesItBack) {
  auto started = EmbeddedCluster::Start({.members = 3});
  ASSERT_TRUE(started.ok()) << started.status();
  EmbeddedCluster& cluster = **started;
  absl::StatusOr<Client> client = cluster.Connect({.request_timeout = absl::Seconds(20)});
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->Put("a", "1").ok());
  const std::optional<size_t> leader = cluster.Leader();
  ASSERT_TRUE(leader.has_value());
  cluster.Kill(*leader);
  EXPECT_FALSE(cluster.running(*leader));
  const std::optional<size_t> next = cluster.Leader();
  ASSERT_TRUE(next.has_value());
  EXPECT_NE(*next, *leader);
  absl::StatusOr<std::optional<KeyValue>> got = client->Get("a");
  ASSERT_TRUE(got.ok() && got->has_value()) << got.status();
  ASSERT_TRUE(client->Put("a", "2").ok());

  ASSERT_TRUE(cluster.Restart(*leader).ok());
  // The third may go now: the first one is back, with its disk.
  cluster.Stop(*next);
  absl::StatusOr<PutResult> put = client->Put("a", "3");
  EXPECT_TRUE(put.ok()) << put.status();
}

TEST(EmbeddedClusterTest, EverybodyMayBeKilledAndNothingIsForgotten) {
  auto started = EmbeddedCluster::Start();
  ASSERT_TRUE(started.ok()) << started.status();
  EmbeddedCluster& cluster = **started;
  absl::StatusOr<Client> client = cluster.Connect({.request_timeout = absl::Seconds(20)});
  ASSERT_TRUE(client.ok());
  absl::StatusOr<PutResult> put = client->Put("a", "1");
  ASSERT_TRUE(put.ok());
  for (size_t i = 0; i < cluster.size(); ++i) cluster.Kill(i);
  for (size_t i = 0; i < cluster.size(); ++i) ASSERT_TRUE(cluster.Restart(i).ok());
  absl::StatusOr<std::optional<KeyValue>> got = client->Get("a");
  ASSERT_TRUE(got.ok() && got->has_value()) << got.status();
  EXPECT_EQ((*got)->mod_revision, put->revision);
}

TEST(EmbeddedClusterTest, RefusesASizeThatIsNone) {
  EXPECT_TRUE(absl::IsInvalidArgument(EmbeddedCluster::Start({.members = 0}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(EmbeddedCluster::Start({.members = 10}).status()));
}

}  // namespace
}  // namespace conclave::testing
