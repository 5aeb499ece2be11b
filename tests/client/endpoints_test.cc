// Where a client finds its cluster: what was given, what the members say, what the DNS says.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/client/dns/srv_lookup.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/client/dns_server.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Collector;
using testing::DnsServer;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::TripleServers;
using testing::WaitFor;
using Names = std::vector<std::string>;

Names Sorted(Names names) {
  std::sort(names.begin(), names.end());
  return names;
}

uint16_t PortOf(const std::string& endpoint) {
  return static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
}

// ---- Sync
// ------------------------------------------------------------------------------------------

class SyncTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(SyncTest, OneGivenEndpointBecomesAllMembers) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = {cluster->endpoint(0)}});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(client->endpoints(), Names{cluster->endpoint(0)});
  absl::Status synced = client->SyncEndpoints();
  ASSERT_TRUE(synced.ok()) << synced;
  EXPECT_EQ(Sorted(client->endpoints()), Sorted(cluster->endpoints()));
  for (const std::string& endpoint : client->endpoints()) {
    auto status = client->Status(endpoint);
    EXPECT_TRUE(status.ok()) << endpoint << ": " << status.status();
  }
  EXPECT_EQ(client->Status("127.0.0.1:9").status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Servers, SyncTest, ::testing::ValuesIn(AllServers()), ServerName);

class AutoSyncTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(AutoSyncTest, TheGivenMemberMayDieOnceTheOthersAreKnown) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect(
      {.endpoints = {cluster->endpoint(0)}, .auto_sync_interval = absl::Seconds(1)});
  ASSERT_TRUE(client.ok()) << client.status();
  Collector seen;
  Watch watch = client->Watch("k", {.list_first = true}, seen.Callback());
  ASSERT_TRUE(WaitFor([&] { return client->endpoints().size() == 3; }));
  cluster->Kill(0);
  EXPECT_TRUE(WaitFor([&] { return client->Put("k", "1", {}, {.timeout = absl::Seconds(2)}).ok(); },
                      absl::Seconds(20)));
  EXPECT_TRUE(seen.WaitForEvents(1));
}

INSTANTIATE_TEST_SUITE_P(Servers, AutoSyncTest, ::testing::ValuesIn(TripleServers()), ServerName);

// ---- DNS
// -------------------------------------------------------------------------------------------

TEST(SrvTargetTest, WhatMayBeWritten) {
  EXPECT_TRUE(IsSrvTarget("srv://example.com"));
  EXPECT_FALSE(IsSrvTarget("example.com:2379"));
  EXPECT_EQ(*ParseSrvTarget("srv://example.com"), (SrvTarget{.domain = "example.com"}));
  EXPECT_EQ(*ParseSrvTarget("srv://example.com./?name=prod&dns=10.0.0.53:5353"),
            (SrvTarget{.domain = "example.com", .name = "prod", .dns = "10.0.0.53:5353"}));
  EXPECT_EQ(ParseSrvTarget("srv://example.com")->service(), "_etcd-client._tcp.example.com");
  EXPECT_EQ(ParseSrvTarget("srv://e.org?name=prod")->service(), "_etcd-client-prod._tcp.e.org");
  for (const char* text : {"srv://", "srv://a b", "srv://a/b", "srv://a?dns=", "srv://a?dns=host",
                           "srv://a?dns=1.2.3.4:0", "srv://a?dns=1.2.3.4:x", "srv://a?other=1",
                           "srv://a?name=", "srv://.a"}) {
    EXPECT_EQ(ParseSrvTarget(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(Client::Connect({.endpoints = {text}}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(SrvLookupTest, RecordsComeByPriorityAndBadOnesAreLeftOut) {
  DnsServer dns;
  dns.Set("_etcd-client._tcp.example.com",
          {{.priority = 2, .port = 2379, .host = "c.example.com"},
           {.priority = 1, .port = 2379, .host = "b.example.com"},
           {.priority = 1, .port = 0, .host = "zero.example.com"},
           {.priority = 1, .port = 1, .host = ""},
           {.priority = 1, .port = 2380, .host = "a.example.com"},
           {.priority = 1, .port = 2380, .host = "a.example.com"}});
  auto found = LookupSrv({.domain = "example.com", .dns = dns.address()});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, (Names{"a.example.com:2380", "b.example.com:2379", "c.example.com:2379"}));
}

TEST(SrvLookupTest, AnAbsentNameAndADomainWithTlsOnlyAreToldApart) {
  DnsServer dns;
  EXPECT_EQ(LookupSrv({.domain = "example.com", .dns = dns.address()}).status().code(),
            absl::StatusCode::kNotFound);
  dns.Set("_etcd-client-ssl._tcp.example.com", {{.port = 2379, .host = "a.example.com"}});
  EXPECT_EQ(LookupSrv({.domain = "example.com", .dns = dns.address()}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(SrvLookupTest, ASilentServerAndOneThatAnswersGarbageAreFailuresNotCrashes) {
  DnsServer dns;
  dns.Set("_etcd-client._tcp.example.com", {});
  for (const std::string& garbage :
       {std::string("\xff\xff\xff\xff\xff\xff"), std::string(400, '\xc0'), std::string("\x01"),
        std::string("\xc0\x0c\0\x21\0\x01\0\0\0\x01\xff\xff\0\0", 14)}) {
    dns.set_garbage(garbage);
    EXPECT_FALSE(LookupSrv({.domain = "example.com", .dns = dns.address()}).ok());
  }
  dns.set_silent(true);
  EXPECT_EQ(LookupSrv({.domain = "example.com", .dns = dns.address()}).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(SrvConnectTest, CallsWaitForTheDnsAndEndKnownIfItNeverAnswers) {
  DnsServer dns;
  dns.set_silent(true);
  std::vector<std::string> lines;
  auto client = Client::Connect({.endpoints = {"srv://example.com?dns=" + dns.address()},
                                 .log_sink = [](LogLevel, std::string_view) {}});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE(client->endpoints().empty());
  auto put = client->Put("k", "v", {}, {.timeout = absl::Milliseconds(200)});
  EXPECT_EQ(put.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(IsOutcomeUnknown(put.status()));
  EXPECT_NE(put.status().message().find("no endpoint"), std::string_view::npos) << put.status();
}

class SrvTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(SrvTest, ACallWaitsForTheDnsAndTheEndpointsFollowIt) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  DnsServer dns;
  const std::string name = "_etcd-client._tcp.example.com";
  auto client = Client::Connect({.endpoints = {"srv://example.com?dns=" + dns.address()},
                                 .auto_sync_interval = absl::Seconds(1),
                                 .log_sink = [](LogLevel, std::string_view) {}});
  ASSERT_TRUE(client.ok()) << client.status();
  Collector seen;
  Watch watch = client->Watch("k", {.list_first = true}, seen.Callback());
  ASSERT_TRUE(WaitFor([&] { return dns.questions() > 0; }));
  // "127.0.0.1" is a host name to the DNS, and resolves to itself.
  dns.Set(name, {{.port = PortOf(cluster->endpoint(0)), .host = "127.0.0.1"}});
  auto put = client->Put("k", "1", {}, {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_TRUE(seen.WaitFor([](const auto& batches) { return !batches.empty(); }));
  ASSERT_TRUE(WaitFor([&] { return Sorted(client->endpoints()) == Sorted(cluster->endpoints()); }))
      << "the members' own, after the sync";
  dns.Set(name, {{.port = PortOf(cluster->endpoint(0)), .host = "127.0.0.1"},
                 {.port = 9, .host = "127.0.0.1"}});
  EXPECT_TRUE(WaitFor([&] {
    const Names now = client->endpoints();
    return !now.empty() && now.back() == "127.0.0.1:9";
  }));
  // The DNS goes: what is known stays.
  dns.set_silent(true);
  const int before = dns.questions();
  EXPECT_TRUE(WaitFor([&] { return dns.questions() > before + 1; }));
  EXPECT_TRUE(client->Put("k", "2").ok());
  EXPECT_EQ(client->endpoints().size(), cluster->endpoints().size() + 1);
}

INSTANTIATE_TEST_SUITE_P(Servers, SrvTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
