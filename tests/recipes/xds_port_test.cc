// --listen-xds-urls of the real server: plain gRPC clients in C++, Python and Node balance over the
// instances of a service and follow them, with nothing but a bootstrap.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/greeter_backend.h"
#include "conclave/tests/recipes/xds_client.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using Addresses = std::set<std::string>;
using ::testing::AllOf;
using ::testing::HasSubstr;

#define START_SERVERS(name, members_, xds_port)                                         \
  if (auto binary_ = ServerBinary(ServerKind::kConclave); !binary_.ok()) {              \
    GTEST_SKIP() << binary_.status().message();                                         \
  }                                                                                     \
  auto name##_or_ = TestCluster::Start(TestCluster::Options{                            \
      .kind = ServerKind::kConclave,                                                    \
      .members = members_,                                                              \
      .extra_flags = {absl::StrCat("--listen-xds-urls=http://127.0.0.1:", xds_port)}}); \
  ASSERT_TRUE(name##_or_.ok()) << name##_or_.status();                                  \
  std::unique_ptr<TestCluster> name = *std::move(name##_or_)

// Where the member serves xDS, as its log says.
std::string XdsAddress(const TestCluster& cluster, int member) {
  std::ifstream file(cluster.log_path(member));
  std::string line;
  while (std::getline(file, line)) {
    if (line.find("serving xDS clients") == std::string::npos) continue;
    const size_t begin = line.find("127.0.0.1:");
    return line.substr(begin, line.find('"', begin) - begin);
  }
  return "";
}

void Register(const TestCluster& cluster, const std::string& address) {
  const auto put = Etcdctl(cluster, {"put", "my-service/" + address,
                                     absl::StrCat(R"({"Op":0,"Addr":")", address, R"("})")});
  ASSERT_TRUE(put.ok()) << put.status();
}

void Unregister(const TestCluster& cluster, const std::string& address) {
  const auto deleted = Etcdctl(cluster, {"del", "my-service/" + address});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
}

// The last whole line of a balancing script's output.
std::string LastLine(const ChildProcess& script) {
  const std::string output = script.Output();
  const size_t end = output.rfind('\n');
  if (end == std::string::npos) return "";
  const size_t before = output.rfind('\n', end - 1);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  return output.substr(begin, end - begin);
}

// Starts a script that prints who answers, and leads it through a change of the set.
void BalancesAndFollows(const std::vector<std::string>& command,
                        const std::vector<std::string>& environment) {
  START_SERVERS(cluster, 1, 0);
  GreeterBackend one;
  GreeterBackend two;
  GreeterBackend three;
  Register(*cluster, one.address());
  Register(*cluster, two.address());
  std::vector<std::string> variables = environment;
  variables.push_back("GRPC_XDS_BOOTSTRAP_CONFIG=" + XdsBootstrap(XdsAddress(*cluster, 0)));
  const auto script = ChildProcess::Start(command, variables);
  ASSERT_TRUE(script.ok()) << script.status();
  const auto answers_are = [&](const Addresses& expected) {
    return WaitFor(
        [&] { return LastLine(**script) == absl::StrJoin(expected, " ") || !(*script)->Running(); },
        absl::Seconds(40));
  };
  ASSERT_TRUE(answers_are({one.address(), two.address()})) << (*script)->Output();
  if ((*script)->Output().starts_with("skip")) GTEST_SKIP() << (*script)->Output();
  ASSERT_TRUE((*script)->Running()) << (*script)->Output();

  Register(*cluster, three.address());
  EXPECT_TRUE(answers_are({one.address(), two.address(), three.address()}));
  Unregister(*cluster, one.address());
  EXPECT_TRUE(answers_are({two.address(), three.address()}));
  EXPECT_TRUE((*script)->Running());
  EXPECT_THAT((*script)->Output(), ::testing::Not(HasSubstr("failed")));
}

TEST(XdsPortTest, ACppClientBalancesAndFollows) {
  START_SERVERS(cluster, 1, 0);
  GreeterBackend one;
  GreeterBackend two;
  GreeterBackend three;
  Register(*cluster, one.address());
  Register(*cluster, two.address());
  XdsClient client(XdsAddress(*cluster, 0), "my-service");
  EXPECT_TRUE(WaitFor([&] { return client.Answers() == Addresses{one.address(), two.address()}; }));

  Register(*cluster, three.address());
  EXPECT_TRUE(WaitFor([&] {
    return client.Answers() == Addresses{one.address(), two.address(), three.address()};
  }));
  Unregister(*cluster, one.address());
  EXPECT_TRUE(WaitFor([&] {
    return client.Answers() == Addresses{two.address(), three.address()};
  }));
}

// What the member's metrics page says of `name`; -1 where it does not.
double Metric(const TestCluster& cluster, const std::string& name) {
  const auto page =
      RunCommand({"/usr/bin/curl", "-sS", absl::StrCat(cluster.endpoints()[0], "/metrics")});
  EXPECT_TRUE(page.ok()) << page.status();
  double value = -1;
  if (!page.ok()) return value;
  for (absl::string_view line : absl::StrSplit(*page, '\n')) {
    if (absl::ConsumePrefix(&line, name + " ")) EXPECT_TRUE(absl::SimpleAtod(line, &value));
  }
  return value;
}

TEST(XdsPortTest, TheMetricsPageTellsOfTheClients) {
  START_SERVERS(cluster, 1, 0);
  EXPECT_EQ(Metric(*cluster, "conclave_xds_streams"), 0);
  EXPECT_EQ(Metric(*cluster, "conclave_xds_responses_total"), 0);
  GreeterBackend one;
  Register(*cluster, one.address());
  XdsClient client(XdsAddress(*cluster, 0), "my-service");
  ASSERT_TRUE(WaitFor([&] { return client.Answers() == Addresses{one.address()}; }));
  EXPECT_EQ(Metric(*cluster, "conclave_xds_streams"), 1);
  EXPECT_EQ(Metric(*cluster, "conclave_xds_services_watched"), 1);
  EXPECT_EQ(Metric(*cluster, "conclave_xds_services_waiting"), 0);
  const double responses = Metric(*cluster, "conclave_xds_responses_total");
  EXPECT_GE(responses, 3);  // the listener with its route, the cluster, the endpoints
  EXPECT_TRUE(WaitFor([&] { return Metric(*cluster, "conclave_xds_acks_total") >= responses; }));
  EXPECT_EQ(Metric(*cluster, "conclave_xds_nacks_total"), 0);
}

TEST(XdsPortTest, APythonClientBalancesAndFollows) {
  BalancesAndFollows({"/usr/bin/python3", "tests/recipes/balance.py", "my-service"}, {});
}

// Needs `node` and the packages @grpc/grpc-js, @grpc/grpc-js-xds and @grpc/proto-loader in the
// folder that CONCLAVE_TEST_NODE_MODULES names.
TEST(XdsPortTest, ANodeClientBalancesAndFollows) {
  const char* modules = std::getenv("CONCLAVE_TEST_NODE_MODULES");
  if (modules == nullptr) {
    GTEST_SKIP() << "CONCLAVE_TEST_NODE_MODULES does not name a folder with grpc-js";
  }
  if (!RunCommand({"/usr/bin/env", "node", "--version"}).ok()) GTEST_SKIP() << "there is no node";
  BalancesAndFollows({"/usr/bin/env", "node", "tests/recipes/node/balance.js", "my-service",
                      "examples/greeter.proto"},
                     {absl::StrCat("NODE_PATH=", modules)});
}

TEST(XdsPortTest, AServiceWithoutInstancesFailsCallsAtOnce) {
  START_SERVERS(cluster, 1, 0);
  XdsClient client(XdsAddress(*cluster, 0), "my-service");
  EXPECT_THAT(client.Call(absl::Seconds(8)), HasSubstr("failed (14)"));  // UNAVAILABLE
  GreeterBackend one;
  Register(*cluster, one.address());
  EXPECT_TRUE(WaitFor([&] { return client.Call() == one.address(); }));
}

TEST(XdsPortTest, AClientLivesThroughARestartOfTheServer) {
  const int port = FreePort();
  START_SERVERS(cluster, 1, port);
  GreeterBackend one;
  GreeterBackend two;
  Register(*cluster, one.address());
  XdsClient client(absl::StrCat("127.0.0.1:", port), "my-service");
  EXPECT_TRUE(WaitFor([&] { return client.Call() == one.address(); }));
  cluster->Kill(0);
  EXPECT_EQ(client.Answers(), Addresses{one.address()});
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitHealthy(0).ok());
  Register(*cluster, two.address());
  EXPECT_TRUE(WaitFor(
      [&] {
        return client.Answers() == Addresses{one.address(), two.address()};
      },
      absl::Seconds(30)));
}

TEST(XdsPortTest, AClientGoesOnToAnotherMember) {
  START_SERVERS(cluster, 3, 0);
  GreeterBackend one;
  GreeterBackend two;
  Register(*cluster, one.address());
  XdsClient client(absl::StrCat("ipv4:", XdsAddress(*cluster, 0), ",", XdsAddress(*cluster, 1)),
                   "my-service");
  EXPECT_TRUE(WaitFor([&] { return client.Call() == one.address(); }));
  cluster->Kill(0);
  EXPECT_EQ(client.Answers(), Addresses{one.address()});
  ASSERT_TRUE(cluster->WaitHealthy(1).ok());
  Register(*cluster, two.address());
  EXPECT_TRUE(WaitFor(
      [&] {
        return client.Answers() == Addresses{one.address(), two.address()};
      },
      absl::Seconds(30)));
}

TEST(XdsPortTest, TheServerStopsInTimeWithClientsOnIt) {
  START_SERVERS(cluster, 1, 0);
  GreeterBackend one;
  Register(*cluster, one.address());
  XdsClient client(XdsAddress(*cluster, 0), "my-service");
  EXPECT_TRUE(WaitFor([&] { return client.Call() == one.address(); }));
  const absl::Time begin = absl::Now();
  cluster->Terminate(0);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));  // at 10 s it would have been killed
  EXPECT_EQ(client.Call(), one.address());
}

TEST(XdsPortTest, AnAddressThatCannotBeUsedIsAStartError) {
  const auto binary = ServerBinary(ServerKind::kConclave);
  if (!binary.ok()) GTEST_SKIP() << binary.status().message();
  const std::string data_dir = absl::StrCat(::testing::TempDir(), "conclave-xds-", getpid());
  const std::string client_urls = absl::StrCat("http://127.0.0.1:", FreePort());
  const std::string peer_urls = absl::StrCat("http://127.0.0.1:", FreePort());
  const auto run = [&](const std::string& urls) {
    return RunCommand({*binary, "--data-dir=" + data_dir, "--listen-client-urls=" + client_urls,
                       "--listen-peer-urls=" + peer_urls, "--listen-xds-urls=" + urls});
  };
  GreeterBackend holder;
  EXPECT_THAT(
      std::string(run("http://" + holder.address()).status().message()),
      AllOf(HasSubstr("--listen-xds-urls"), HasSubstr("cannot listen on " + holder.address())));
  EXPECT_THAT(std::string(run("http://192.0.2.1:2400").status().message()),
              HasSubstr("cannot listen on 192.0.2.1:2400"));
  EXPECT_THAT(std::string(run("2400").status().message()),
              AllOf(HasSubstr("--listen-xds-urls"), HasSubstr("no scheme")));
  ASSERT_TRUE(RunCommand({"/bin/rm", "-rf", data_dir}).ok());
}

}  // namespace
}  // namespace conclave::testing
