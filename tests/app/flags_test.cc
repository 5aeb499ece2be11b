// Flags and environment: etcd's syntax, precedence, and a clear word for everything that cannot be
// used.
#include "conclave/server/app/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace conclave::app {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

absl::StatusOr<CommandLine> Parse(std::vector<std::string> arguments,
                                  std::map<std::string, std::string> environment = {}) {
  return ParseCommandLine(arguments, environment);
}

TEST(FlagsTest, WithoutArgumentsItServesLocally) {
  const auto line = Parse({});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.name, "default");
  EXPECT_EQ(line->config.data_dir, "default.conclave");
  ASSERT_EQ(line->config.listen_client_urls.size(), 1u);
  EXPECT_EQ(line->config.listen_client_urls[0].HostPort(), "127.0.0.1:2379");
  EXPECT_EQ(line->config.listen_peer_urls[0].HostPort(), "127.0.0.1:2380");
  EXPECT_THAT(line->warnings, IsEmpty());
  ASSERT_TRUE(line->config.initial_cluster.contains("default"));
}

TEST(FlagsTest, EverySpellingOfGoIsUnderstood) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"--name=a", "--initial-cluster=a=http://h:1"},
           {"-name", "a", "-initial-cluster", "a=http://h:1"},
           {"--name", "b", "--name", "a", "--initial-cluster", "a=http://h:1"}}) {
    const auto line = Parse(arguments);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(line->config.name, "a");
    EXPECT_EQ(line->config.data_dir, "a.conclave");
  }
}

TEST(FlagsTest, ABooleanTakesNoSeparateValue) {
  EXPECT_TRUE(Parse({"--pre-vote"}).ok());
  EXPECT_TRUE(Parse({"--pre-vote=t"}).ok());
  EXPECT_FALSE(Parse({"--pre-vote", "true"}).ok());
}

TEST(FlagsTest, AFlagBeatsTheEnvironment) {
  const auto from_environment = Parse({}, {{"ETCD_NAME", "e"}, {"ETCD_HEARTBEAT_INTERVAL", "50"}});
  ASSERT_TRUE(from_environment.ok()) << from_environment.status();
  EXPECT_EQ(from_environment->config.name, "e");
  EXPECT_EQ(from_environment->config.heartbeat_interval, std::chrono::milliseconds(50));
  const auto both = Parse({"--name=f"}, {{"ETCD_NAME", "e"}});
  EXPECT_EQ(both->config.name, "f");
  EXPECT_THAT(both->warnings, Contains(HasSubstr("ETCD_NAME is shadowed")));
}

TEST(FlagsTest, AnUnknownVariableOnlyWarns) {
  const auto line = Parse({}, {{"ETCD_NONSENSE", "1"}, {"HOME", "/"}});
  ASSERT_TRUE(line.ok());
  EXPECT_THAT(line->warnings, testing::ElementsAre(HasSubstr("ETCD_NONSENSE")));
}

TEST(FlagsTest, ABadVariableIsNamed) {
  const auto line = Parse({}, {{"ETCD_ELECTION_TIMEOUT", "soon"}});
  EXPECT_THAT(std::string(line.status().message()),
              AllOf(HasSubstr("ETCD_ELECTION_TIMEOUT"), HasSubstr("whole number")));
}

TEST(FlagsTest, DurationsAreGos) {
  const auto line = Parse({"--grpc-keepalive-interval=1h30m", "--auto-compaction-retention=5m"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.grpc_keepalive_interval, std::chrono::minutes(90));
  EXPECT_EQ(line->config.auto_compaction_mode, CompactionMode::kPeriodic);
  EXPECT_EQ(line->config.auto_compaction_period, std::chrono::minutes(5));
}

TEST(FlagsTest, RetentionMeansWhatTheModeSays) {
  const auto revisions =
      Parse({"--auto-compaction-retention=1000", "--auto-compaction-mode=revision"});
  ASSERT_TRUE(revisions.ok()) << revisions.status();
  EXPECT_EQ(revisions->config.auto_compaction_mode, CompactionMode::kRevision);
  EXPECT_EQ(revisions->config.auto_compaction_revisions, 1000);
  const auto hours = Parse({"--auto-compaction-retention=2"});
  EXPECT_EQ(hours->config.auto_compaction_period, std::chrono::hours(2));
  EXPECT_FALSE(Parse({"--auto-compaction-mode=revision", "--auto-compaction-retention=5m"}).ok());
  EXPECT_EQ(Parse({"--auto-compaction-mode=periodic"})->config.auto_compaction_mode,
            CompactionMode::kOff);
}

TEST(FlagsTest, AnAdvertisedAddressIsReachable) {
  const auto line = Parse({"--listen-client-urls=http://0.0.0.0:1234"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.advertise_client_urls[0].Text(), "http://localhost:1234");
}

TEST(FlagsTest, AddressesOfAllKinds) {
  EXPECT_EQ(ParseUrl("http://[::1]:2379")->Text(), "http://[::1]:2379");
  EXPECT_EQ(ParseUrl("http://host:1/")->HostPort(), "host:1");
  for (const char* bad : {"", "host:1", "http://", "http://host", "http://host:x",
                          "http://host:70000", "http://host:1/path", "http://::1:2379",
                          "ftp://host:1", "http://:2379", "http://user@host:1"}) {
    EXPECT_FALSE(ParseUrl(bad).ok()) << bad;
  }
  EXPECT_THAT(std::string(ParseUrl("https://host:1").status().message()),
              HasSubstr("TLS is not there yet"));
}

struct BadCase {
  std::vector<std::string> arguments;
  std::vector<std::string> words;  // that the message must hold
};

class BadFlagTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadFlagTest, IsNamedWithTheWayToPutItRight) {
  const auto line = Parse(GetParam().arguments);
  ASSERT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(line.status().message());
  for (const std::string& word : GetParam().words) EXPECT_THAT(message, HasSubstr(word));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadFlagTest,
    testing::Values(
        BadCase{{"--nmae=x"}, {"unknown flag --nmae", "did you mean --name?"}},
        BadCase{{"--zzzzzzzzzzzz"}, {"unknown flag --zzzzzzzzzzzz", "--help"}},
        BadCase{{"name=x"}, {"name=x", "is not a flag"}},
        BadCase{{"--name"}, {"--name needs a value"}},
        BadCase{{"--name="}, {"--name must not be empty"}},
        BadCase{{"--heartbeat-interval=fast"}, {"--heartbeat-interval", "fast", "whole number"}},
        BadCase{{"--heartbeat-interval=0"}, {"--heartbeat-interval", "from 1"}},
        BadCase{{"--heartbeat-interval=900"}, {"--election-timeout", "--heartbeat-interval"}},
        BadCase{{"--election-timeout=60000"}, {"--election-timeout", "50000"}},
        BadCase{{"--grpc-keepalive-min-time=5"}, {"--grpc-keepalive-min-time", "duration"}},
        BadCase{{"--quota-backend-bytes=2G"}, {"--quota-backend-bytes", "2G"}},
        BadCase{{"--max-txn-ops=0"}, {"--max-txn-ops"}},
        BadCase{{"--initial-cluster-state=old"}, {"--initial-cluster-state", "new or existing"}},
        BadCase{{"--initial-cluster=x=http://h:1"},
                {"--initial-cluster", "does not list this member", "default"}},
        BadCase{{"--initial-cluster=http://h:1"}, {"--initial-cluster", "name=http://host:port"}},
        BadCase{{"--initial-cluster=default=http://h:1,b=http://h:1"}, {"to both"}},
        BadCase{
            {"--initial-cluster=default=http://h:1", "--initial-advertise-peer-urls=http://h:2"},
            {"--initial-cluster", "--initial-advertise-peer-urls"}},
        BadCase{{"--listen-client-urls=https://h:1"},
                {"--listen-client-urls", "TLS is not there yet"}},
        BadCase{{"--listen-peer-urls=nonsense"}, {"--listen-peer-urls", "http://127.0.0.1:2379"}},
        BadCase{{"--cert-file=x"}, {"--cert-file cannot be used", "TLS"}},
        BadCase{{"--auto-tls"}, {"--auto-tls", "TLS"}},
        BadCase{{"--auth-token=jwt"}, {"--auth-token", "not there yet"}},
        BadCase{{"--unsafe-no-fsync"}, {"--unsafe-no-fsync", "cannot be used"}},
        BadCase{{"--pre-vote=false"}, {"--pre-vote", "must be true"}},
        BadCase{{"--log-level=loud"}, {"--log-level", "debug"}},
        BadCase{{"--logger=capnslog"}, {"--logger", "zap"}},
        BadCase{{"--metrics=all"}, {"--metrics", "basic or extensive"}},
        BadCase{{"--config-file=x"}, {"--config-file", "not there yet"}}));

TEST(FlagsTest, ARefusedSwitchThatIsOffAsksForNothing) {
  EXPECT_TRUE(Parse({"--auto-tls=false", "--force-new-cluster=false"}).ok());
}

TEST(FlagsTest, WhatHasNoMeaningIsAcceptedAndSaid) {
  const auto line = Parse({"--snapshot-count=10000", "--enable-pprof", "--max-wals", "5"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->warnings.size(), 3u);
  EXPECT_THAT(line->warnings, Contains(HasSubstr("--snapshot-count is ignored")));
}

TEST(FlagsTest, TheManualNamesEveryFlagWithItsFate) {
  std::ifstream file("docs/server.md");
  ASSERT_TRUE(file) << "run from the source directory";
  std::stringstream text;
  text << file.rdbuf();
  for (const FlagEntry& flag : AllFlags()) {
    const std::string row = "| `--" + std::string(flag.name) + "` | " +
                            (flag.fate == FlagFate::kWorks     ? "works"
                             : flag.fate == FlagFate::kIgnored ? "accepted, no effect"
                                                               : "refused");
    EXPECT_THAT(text.str(), HasSubstr(row));
  }
}

TEST(FlagsTest, HelpNamesEveryFlagOnce) {
  const std::string help = HelpText();
  std::set<std::string> names;
  for (const FlagEntry& flag : AllFlags()) {
    EXPECT_TRUE(names.insert(flag.name).second) << flag.name << " stands twice in the table";
    EXPECT_THAT(help, HasSubstr("  --" + std::string(flag.name)));
    EXPECT_EQ(flag.fate == FlagFate::kWorks, flag.set != nullptr) << flag.name;
  }
  EXPECT_TRUE(Parse({"--help"})->help);
  EXPECT_TRUE(Parse({"--version"})->version);
}

}  // namespace
}  // namespace conclave::app
