// The examples as a user runs them: real processes against real clusters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using testing::ChildProcess;
using ::testing::HasSubstr;
using testing::RunCommand;
using testing::ServerUnderTest;
using testing::TestCluster;
using testing::WaitFor;

std::string Program(const std::string& name) {
  return std::string(CONCLAVE_EXAMPLES_DIR) + "/" + name;
}

std::unique_ptr<ChildProcess> Start(const TestCluster& cluster, const std::string& program,
                                    std::vector<std::string> flags) {
  std::vector<std::string> argv = {Program(program), "--endpoints", cluster.JoinedEndpoints()};
  argv.insert(argv.end(), flags.begin(), flags.end());
  auto process = ChildProcess::Start(argv);
  EXPECT_TRUE(process.ok()) << process.status();
  return *std::move(process);
}

bool Says(const ChildProcess& process, const std::string& what,
          absl::Duration timeout = absl::Seconds(20)) {
  return WaitFor([&] { return process.Output().find(what) != std::string::npos; }, timeout);
}

// The number behind `what` at its first occurrence; 0: none.
int64_t NumberAfter(const std::string& text, const std::string& what) {
  std::smatch match;
  if (!std::regex_search(text, match, std::regex(what + "([0-9]+)"))) return 0;
  return std::stoll(match[1]);
}

std::map<std::string, int64_t> AnsweredCalls(const std::string& output) {
  std::map<std::string, int64_t> calls;
  const std::regex line("(\\S+) answered ([0-9]+) calls");
  for (std::sregex_iterator it(output.begin(), output.end(), line), end; it != end; ++it) {
    calls[(*it)[1]] = std::stoll((*it)[2]);
  }
  return calls;
}

class ExamplesTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  struct Greeter {
    std::unique_ptr<ChildProcess> process;
    std::string address;
  };
  static Greeter StartGreeter(const TestCluster& cluster, const std::string& service,
                              const std::string& ttl = "2s") {
    Greeter greeter;
    greeter.process =
        Start(cluster, "greeter_server", {"--service", service, "--ttl", ttl, "--notice", "400ms"});
    EXPECT_TRUE(Says(*greeter.process, "registered as " + service)) << greeter.process->Output();
    std::smatch match;
    const std::string output = greeter.process->Output();
    EXPECT_TRUE(std::regex_search(output, match, std::regex("listening on (\\S+)"))) << output;
    greeter.address = match[1];
    return greeter;
  }
};

TEST_P(ExamplesTest, TheStoreAndTheStateOfTheCluster) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  const auto kv = RunCommand({Program("kv_demo"), "--endpoints", cluster->JoinedEndpoints()});
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_THAT(*kv, HasSubstr("rate is 100, absent is absent"));
  EXPECT_THAT(*kv, HasSubstr("watch: kv_demo/rate=200"));
  EXPECT_THAT(*kv, HasSubstr("compare-and-set succeeded"));
  EXPECT_THAT(*kv, HasSubstr("after the session alive is gone"));
  const auto status =
      RunCommand({Program("cluster_status"), "--endpoints", cluster->JoinedEndpoints()});
  ASSERT_TRUE(status.ok()) << status.status();
  const std::vector<std::string> lines = absl::StrSplit(*status, '\n', absl::SkipEmpty());
  EXPECT_EQ(lines.size(), static_cast<size_t>(cluster->size())) << *status;
  EXPECT_THAT(*status, HasSubstr(" leader "));
}

TEST_P(ExamplesTest, ServersRegisterAndCallsSpreadEvenly) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  std::vector<Greeter> greeters;
  for (int i = 0; i < 3; ++i) greeters.push_back(StartGreeter(*cluster, "even"));
  auto client =
      Start(*cluster, "greeter_client", {"--service", "even", "--calls", "300", "--warm-up", "3"});
  const auto code = client->Wait(absl::Seconds(60));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0) << client->Output();
  const auto calls = AnsweredCalls(client->Output());
  EXPECT_EQ(calls.size(), 3u) << client->Output();
  for (const Greeter& greeter : greeters) {
    ASSERT_TRUE(calls.contains(greeter.address)) << client->Output();
    EXPECT_GE(calls.at(greeter.address), 90) << client->Output();
    EXPECT_LE(calls.at(greeter.address), 110) << client->Output();
  }
}

TEST_P(ExamplesTest, AStoppedServerLeavesWithoutAFailedCall) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Greeter stays = StartGreeter(*cluster, "stop");
  Greeter leaves = StartGreeter(*cluster, "stop");
  auto client = Start(*cluster, "greeter_client",
                      {"--service", "stop", "--duration", "60s", "--warm-up", "2"});
  auto watcher = Start(*cluster, "discovery_demo", {"--service", "stop"});
  ASSERT_TRUE(Says(*watcher, "2 instances")) << watcher->Output();
  leaves.process->Signal(SIGTERM);
  const auto code = leaves.process->Wait(absl::Seconds(20));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0) << leaves.process->Output();
  EXPECT_TRUE(Says(*watcher, "left " + leaves.address)) << watcher->Output();
  Greeter joins = StartGreeter(*cluster, "stop");
  EXPECT_TRUE(Says(*watcher, "joined " + joins.address)) << watcher->Output();
  client->Signal(SIGTERM);
  const auto client_code = client->Wait(absl::Seconds(20));
  ASSERT_TRUE(client_code.ok()) << client_code.status();
  EXPECT_EQ(*client_code, 0) << client->Output();
  EXPECT_THAT(client->Output(), HasSubstr(", 0 failed"));
}

// The call that is under way on the killed server fails, and perhaps one more or two that begin
// before gRPC has noticed that the connection is broken. With retries none fails.
TEST_P(ExamplesTest, AKilledServerIsLeftAtOnceAndGoneWithinItsTtl) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Greeter stays = StartGreeter(*cluster, "kill");
  Greeter dies = StartGreeter(*cluster, "kill");
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok()) << client.status();
  auto service = Discovery(*client).Watch("kill");
  ASSERT_TRUE(service.ok()) << service.status();
  ASSERT_TRUE(service
                  ->Wait([](const Snapshot& now) { return now.instances().size() == 2; },
                         {.timeout = absl::Seconds(20)})
                  .ok());
  auto caller = Start(*cluster, "greeter_client",
                      {"--service", "kill", "--duration", "60s", "--warm-up", "2"});
  auto retrier =
      Start(*cluster, "greeter_client",
            {"--service", "kill", "--duration", "60s", "--warm-up", "2", "--retries", "3"});
  // Both are past their warm-up when the server that is to die has answered them for a while: the
  // client tells nothing until its end, so give them the time of some hundred calls of a third one.
  const auto third = RunCommand({Program("greeter_client"), "--endpoints",
                                 cluster->JoinedEndpoints(), "--service", "kill", "--calls", "500"},
                                absl::Seconds(60));
  ASSERT_TRUE(third.ok()) << third.status();
  const absl::Time killed = absl::Now();
  dies.process->Signal(SIGKILL);
  const auto gone = service->Wait([](const Snapshot& now) { return now.instances().size() == 1; },
                                  {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(gone.ok()) << gone.status();
  EXPECT_LE(absl::Now() - killed, absl::Seconds(3)) << "its TTL is 2 s; one more to notice";
  EXPECT_EQ((*gone)->instances()[0].address, stays.address);
  caller->Signal(SIGTERM);
  retrier->Signal(SIGTERM);
  ASSERT_TRUE(caller->Wait(absl::Seconds(20)).ok());
  const auto retried = retrier->Wait(absl::Seconds(20));
  ASSERT_TRUE(retried.ok());
  EXPECT_EQ(*retried, 0) << retrier->Output();
  EXPECT_LE(NumberAfter(caller->Output(), "calls, "), 3) << caller->Output();
}

TEST_P(ExamplesTest, LockHoldersTakeTurnsWithGrowingTokens) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  const auto journal = std::filesystem::temp_directory_path() /
                       ("conclave-examples-journal-" + std::to_string(getpid()));
  std::filesystem::remove(journal);
  std::vector<std::unique_ptr<ChildProcess>> holders;
  for (const std::string name : {"alice", "bob"}) {
    holders.push_back(Start(
        *cluster, "lock_demo",
        {"--holder", name, "--rounds", "10", "--hold", "5ms", "--journal", journal.string()}));
  }
  for (const auto& holder : holders) {
    const auto code = holder->Wait(absl::Seconds(60));
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 0) << holder->Output();
  }
  std::ifstream grants(journal);
  std::string name;
  int64_t token = 0;
  int64_t last = 0;
  int count = 0;
  while (grants >> name >> token) {
    EXPECT_GT(token, last);
    last = token;
    ++count;
  }
  EXPECT_EQ(count, 20);
  std::filesystem::remove(journal);
}

TEST_P(ExamplesTest, ADeadLeaderIsSucceeded) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  const auto candidate = [&](const std::string& id) {
    return Start(*cluster, "election_demo", {"--id", id, "--ttl", "2s"});
  };
  auto first = candidate("first");
  ASSERT_TRUE(Says(*first, "leads, term ")) << first->Output();
  auto second = candidate("second");
  ASSERT_TRUE(Says(*second, "the leader is first")) << second->Output();
  first->Signal(SIGKILL);
  ASSERT_TRUE(Says(*second, "leads, term ")) << second->Output();
  EXPECT_GT(NumberAfter(second->Output(), "leads, term "),
            NumberAfter(first->Output(), "leads, term "));
  auto third = candidate("third");
  ASSERT_TRUE(Says(*third, "the leader is second")) << third->Output();
  second->Signal(SIGTERM);
  const auto code = second->Wait(absl::Seconds(20));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0) << second->Output();
  EXPECT_TRUE(Says(*third, "leads, term ", absl::Seconds(2)))
      << "a leader that resigns blocks no one";
}

using LeaderLossTest = ExamplesTest;

TEST_P(LeaderLossTest, NoHealthyServerLeavesAndNoCallFailsWhenTheClustersLeaderDies) {
  // Longer than it takes to elect a leader and to reach it, or else a registration rightly thinks
  // it is lost.
  const std::string kTtl = "8s";
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  std::vector<Greeter> greeters;
  for (int i = 0; i < 3; ++i) greeters.push_back(StartGreeter(*cluster, "steady", kTtl));
  auto watcher = Start(*cluster, "discovery_demo", {"--service", "steady"});
  ASSERT_TRUE(Says(*watcher, "3 instances")) << watcher->Output();
  auto client = Start(*cluster, "greeter_client",
                      {"--service", "steady", "--duration", "120s", "--warm-up", "3"});
  for (int round = 0; round < 3; ++round) {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok()) << leader.status();
    cluster->Kill(*leader);
    ASSERT_TRUE(cluster->Leader().ok());
    // What comes after the change of leader is seen by the watch that was there before it.
    Greeter guest = StartGreeter(*cluster, "steady", kTtl);
    EXPECT_TRUE(Says(*watcher, "joined " + guest.address)) << watcher->Output();
    guest.process->Signal(SIGTERM);
    ASSERT_TRUE(guest.process->Wait(absl::Seconds(20)).ok());
    EXPECT_TRUE(Says(*watcher, "left " + guest.address)) << watcher->Output();
    ASSERT_TRUE(cluster->Restart(*leader).ok());
    ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  }
  for (const Greeter& greeter : greeters) {
    EXPECT_EQ(watcher->Output().find("left " + greeter.address), std::string::npos)
        << watcher->Output();
  }
  client->Signal(SIGTERM);
  const auto code = client->Wait(absl::Seconds(20));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0) << client->Output();
}

INSTANTIATE_TEST_SUITE_P(Servers, LeaderLossTest, ::testing::ValuesIn(testing::TripleServers()),
                         testing::ServerName);
INSTANTIATE_TEST_SUITE_P(Servers, ExamplesTest, ::testing::ValuesIn(testing::AllServers()),
                         testing::ServerName);

#ifdef CONCLAVE_HAS_FAKE_SERVER_DEMO
TEST(FakeServerDemoTest, ShowsAnHourOfTrouble) {
  const auto output = RunCommand({Program("fake_server_demo")}, absl::Seconds(60));
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_THAT(*output, HasSubstr("does not believe in it any more"));
  EXPECT_THAT(*output, HasSubstr("after an hour without a server it is registered again"));
  EXPECT_THAT(*output, HasSubstr("fake_server_demo: ok"));
}
#endif

#ifdef CONCLAVE_HAS_QUICKSTART
TEST(QuickstartTest, ShowsEverythingInOneProcess) {
  const auto output = RunCommand({Program("quickstart")}, absl::Seconds(60));
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_THAT(*output, HasSubstr("greeter says: hello, world"));
  EXPECT_THAT(*output, HasSubstr("the lock is ours"));
  EXPECT_THAT(*output, HasSubstr("we lead"));
  EXPECT_THAT(*output, HasSubstr("quickstart: ok"));
}
#endif

TEST(ExamplesFlagsTest, BadFlagsEndWithTwoAndSayWhatIsWrong) {
  const std::vector<std::vector<std::string>> bad = {
      {"--no-such-flag", "1"}, {"--endpoints"}, {"--endpoints", "a,,b"}, {"positional"}};
  for (const std::string program : {"greeter_server", "greeter_client", "discovery_demo", "kv_demo",
                                    "cluster_status", "lock_demo", "election_demo"}) {
    for (std::vector<std::string> argv : bad) {
      const std::string culprit = argv[0];
      argv.insert(argv.begin(), Program(program));
      auto process = ChildProcess::Start(argv);
      ASSERT_TRUE(process.ok()) << process.status();
      const auto code = (*process)->Wait();
      ASSERT_TRUE(code.ok()) << code.status();
      EXPECT_EQ(*code, 2) << program << " " << culprit;
      EXPECT_THAT((*process)->Output(), HasSubstr(culprit));
    }
    const auto help = RunCommand({Program(program), "--help"});
    ASSERT_TRUE(help.ok()) << help.status();
    EXPECT_THAT(*help, HasSubstr("--endpoints"));
  }
}

TEST(ExamplesFlagsTest, ValuesAreCheckedByKind) {
  const std::vector<std::vector<std::string>> bad = {{"greeter_client", "--calls", "0"},
                                                     {"greeter_client", "--calls", "many"},
                                                     {"greeter_client", "--interval", "5"},
                                                     {"greeter_client", "--interval=-1s"},
                                                     {"lock_demo", "--name", ""}};
  for (std::vector<std::string> argv : bad) {
    const std::string flag = argv[1].substr(0, argv[1].find('='));
    argv[0] = Program(argv[0]);
    auto process = ChildProcess::Start(argv);
    ASSERT_TRUE(process.ok()) << process.status();
    EXPECT_EQ(*(*process)->Wait(), 2);
    EXPECT_THAT((*process)->Output(), HasSubstr(flag + " cannot be"));
  }
}

}  // namespace
}  // namespace conclave
