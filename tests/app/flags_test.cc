// Flags and environment: etcd's syntax, precedence, and a clear word for everything that cannot be
// used.
#include "conclave/server/app/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "conclave/server/app/command_line.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
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

TEST(FlagsTest, NumbersAndDurationsAreWrittenAsInGo) {
  for (const auto& [text, value] :
       std::map<std::string, int64_t>{{"0", 0},
                                      {"42", 42},
                                      {"+7", 7},
                                      {"-7", -7},
                                      {"0x1F", 31},
                                      {"017", 15},
                                      {"0o17", 15},
                                      {"0b101", 5},
                                      {"1_000", 1000},
                                      {"0x_f", 15},
                                      {"9223372036854775807", INT64_MAX},
                                      {"-9223372036854775808", INT64_MIN}}) {
    EXPECT_EQ(ParseInt(text, INT64_MIN, INT64_MAX, "1").value_or(-99), value) << text;
  }
  for (const char* bad : {"", "-", "x", "1.5", "08", "0x", "1__0", "_1", "1_",
                          "9223372036854775808", " 1", "1 ", "--1", "1e3"}) {
    EXPECT_FALSE(ParseInt(bad, INT64_MIN, INT64_MAX, "1").ok()) << bad;
  }
  for (const auto& [text, value] :
       std::map<std::string, Duration>{{"0", Duration::zero()},
                                       {"1h0m0s", std::chrono::hours(1)},
                                       {"1.5s", std::chrono::milliseconds(1500)},
                                       {"3\xc2\xb5s", std::chrono::microseconds(3)},
                                       {"-2m", std::chrono::minutes(-2)},
                                       {"1ns", Duration(1)}}) {
    EXPECT_EQ(ParseDuration(text, Duration::min()).value_or(Duration(-99)), value) << text;
  }
  for (const char* bad : {"", "5", "s", "1d", "inf", "-inf", "1h 2m", "9999999h"}) {
    EXPECT_FALSE(ParseDuration(bad, Duration::min()).ok()) << bad;
  }
}

TEST(FlagsTest, AFlagThatIsIgnoredStillHasToBeWellFormed) {
  EXPECT_FALSE(Parse({"--max-wals=many"}).ok());
  EXPECT_FALSE(Parse({"--raft-read-timeout=5"}).ok());
}

TEST(FlagsTest, AFeatureGateWorksOrIsWarnedAbout) {
  const auto parsed = Parse({"--feature-gates=AllAlpha=true,LeaseCheckpoint=true"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->config.compact_hash_check);
  EXPECT_THAT(parsed->warnings, ElementsAre(AllOf(HasSubstr("LeaseCheckpoint is ignored"),
                                                  HasSubstr("always replicated"))));
  EXPECT_FALSE(
      Parse({"--feature-gates=AllAlpha=true,CompactHashCheck=false"})->config.compact_hash_check)
      << "the gate that is named decides";
  EXPECT_THAT(Parse({"--feature-gates=CompactHashCheck=true"})->warnings, IsEmpty());
  EXPECT_FALSE(Parse({})->config.stop_grpc_service_on_defrag);
  for (const char* on :
       {"--feature-gates=StopGRPCServiceOnDefrag=true", "--feature-gates=AllAlpha=true",
        "--experimental-stop-grpc-service-on-defrag"}) {
    const auto switched = Parse({on});
    ASSERT_TRUE(switched.ok()) << switched.status();
    EXPECT_TRUE(switched->config.stop_grpc_service_on_defrag) << on;
    EXPECT_THAT(switched->warnings, IsEmpty()) << on;
  }
}

TEST(FlagsTest, PasswordsOnTheCommandLineAreNotShown) {
  EXPECT_THAT(
      WithoutSecrets({"conclave", "--name=--discovery-password", "--discovery-password=p=q",
                      "-discovery-user", "u:p", "--discovery-user-name=x", "--discovery-password"}),
      ElementsAre("conclave", "--name=--discovery-password", "--discovery-password=xxxxx",
                  "-discovery-user", "xxxxx", "--discovery-user-name=x", "--discovery-password"));
}

TEST(FlagsTest, ChecksElectionsAndCompactionAreTuned) {
  const auto given =
      Parse({"--corrupt-check-time=5s", "--initial-election-tick-advance=false",
             "--experimental-compaction-batch-limit=7", "--compaction-sleep-interval=20ms",
             "--warning-watch-progress-duration=2s"});
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->config.corrupt_check_time, std::chrono::seconds(5));
  EXPECT_FALSE(given->config.initial_election_tick_advance);
  EXPECT_EQ(given->config.compaction_batch_limit, 7u);
  EXPECT_EQ(given->config.compaction_sleep_interval, std::chrono::milliseconds(20));
  EXPECT_EQ(given->config.warning_apply_duration, std::chrono::seconds(2));
  EXPECT_THAT(given->warnings, IsEmpty());
  EXPECT_TRUE(Parse({})->config.initial_election_tick_advance);
}

TEST(FlagsTest, LogsAreRotatedAsTheirSettingsSay) {
  const auto on = Parse(
      {"--enable-log-rotation", R"(--log-rotation-config-json={"maxsize": 5, "maxbackups": 3})"});
  ASSERT_TRUE(on.ok()) << on.status();
  EXPECT_EQ(on->config.log.rotation.file_bytes_max, 5u << 20);
  EXPECT_EQ(on->config.log.rotation.files, 3u);
  EXPECT_FALSE(on->config.log.rotation.compress);
  const auto all =
      Parse({"--enable-log-rotation",
             R"(--log-rotation-config-json={"maxage": 3, "localtime": true, "compress": true})"});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->config.log.rotation.age_max, std::chrono::hours(72));
  EXPECT_EQ(all->config.log.rotation.files, 0u) << "all of them";
  EXPECT_TRUE(all->config.log.rotation.local_time);
  EXPECT_TRUE(all->config.log.rotation.compress);
  EXPECT_EQ(Parse({})->config.log.rotation.file_bytes_max, 0u);
  EXPECT_EQ(Parse({"--enable-log-rotation"})->config.log.rotation.file_bytes_max, 100u << 20);
  // etcd's default.
  EXPECT_TRUE(Parse({R"(--log-rotation-config-json={"maxsize": 100, "maxage": 0, "maxbackups": 0, )"
                     R"("localtime": false, "compress": false})"})
                  .ok());
  for (const char* bad : {"", "[]", "{", R"({"maxsize": -1})", R"({"maxsize": "1"})",
                          R"({"maxage": -3})", R"({"compress": 1})", R"({"localtime": "x"})"}) {
    EXPECT_FALSE(Parse({"--log-rotation-config-json", bad}).ok()) << bad;
  }
}

TEST(FlagsTest, OlderSpellingsAreUnderstood) {
  const auto flag = Parse({"--experimental-watch-progress-notify-interval=3s"});
  ASSERT_TRUE(flag.ok()) << flag.status();
  EXPECT_EQ(flag->config.watch_progress_notify_interval, std::chrono::seconds(3));
  const auto variable = Parse({}, {{"ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "4s"}});
  EXPECT_EQ(variable->config.watch_progress_notify_interval, std::chrono::seconds(4));
  EXPECT_FALSE(Parse({"--experimental-name=x"}).ok());
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
  const auto secure = ParseUrl("https://host:1");
  ASSERT_TRUE(secure.ok()) << secure.status();
  EXPECT_TRUE(secure->is_tls());
  EXPECT_EQ(secure->Text(), "https://host:1");
  const auto socket = ParseUrl("unixs:///run/conclave.sock");
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_TRUE(socket->is_tls() && socket->is_unix());
  EXPECT_EQ(socket->HostPort(), "/run/conclave.sock");
  EXPECT_EQ(ParseUrl("unix://localhost:2379")->HostPort(), "localhost:2379");
  EXPECT_FALSE(ParseUrl("unix://").ok());
  EXPECT_FALSE(ParseUrl("unix:///" + std::string(200, 'x')).ok());
}

TEST(FlagsTest, TlsIsSetForEachKindOfPort) {
  const auto line =
      Parse({"--listen-client-urls=https://127.0.0.1:1,http://127.0.0.1:1", "--cert-file=c",
             "--key-file=k", "--trusted-ca-file=ca", "--client-cert-auth", "--client-crl-file=crl",
             "--client-cert-allowed-hostname=a, b", "--peer-auto-tls", "--peer-cert-allowed-cn=m",
             "--tls-min-version=TLS1.2", "--tls-max-version=TLS1.3",
             "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"});
  ASSERT_TRUE(line.ok()) << line.status();
  const tls::Options& client = line->config.client_tls.files;
  EXPECT_EQ(client.cert_file, "c");
  EXPECT_EQ(client.key_file, "k");
  EXPECT_EQ(client.ca_file, "ca");
  EXPECT_EQ(client.crl_file, "crl");
  EXPECT_TRUE(client.client_cert_auth);
  EXPECT_THAT(client.allowed_hostnames, testing::ElementsAre("a", "b"));
  EXPECT_TRUE(line->config.peer_tls.self_signed);
  const tls::Options& peer = line->config.peer_tls.files;
  EXPECT_THAT(peer.allowed_names, testing::ElementsAre("m"));
  // What holds for all ports.
  EXPECT_EQ(peer.version_max, tls::Version::kTls13);
  EXPECT_THAT(peer.cipher_suites, testing::SizeIs(1));
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
        BadCase{{"--initial-cluster=http://h:1"}, {"--initial-cluster", "name=http://host:port"}},
        BadCase{{"--discovery-token=t"}, {"--discovery-endpoints", "set both"}},
        BadCase{{"--discovery-token=a/b"}, {"--discovery-token", "slash"}},
        BadCase{{"--discovery-token=t", "--discovery-endpoints=h:1",
                 "--initial-cluster=default=http://h:1"},
                {"choose one of", "--initial-cluster"}},
        BadCase{{"--discovery-token=t", "--discovery-endpoints=h:1",
                 "--initial-cluster-state=existing"},
                {"--discovery-token", "new cluster"}},
        BadCase{{"--discovery-token=t", "--discovery-endpoints=h:1", "--discovery-cert=c"},
                {"--discovery-cert", "--discovery-key"}},
        BadCase{{"--listen-client-urls=https://h:1"},
                {"--cert-file, --key-file", "must be provided for client url https://h:1"}},
        BadCase{
            {"--listen-metrics-urls=https://h:1"},
            {"client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure "
             "url https://h:1"}},
        BadCase{{"--listen-peer-urls=https://h:1"}, {"--peer-cert-file", "peer url https://h:1"}},
        BadCase{{"--listen-xds-urls=https://h:2"},
                {"--cert-file, --key-file", "xds url https://h:2"}},
        BadCase{{"--listen-xds-urls=unix:///run/x"}, {"--listen-xds-urls", "http:// and https://"}},
        BadCase{{"--cipher-suites=TLS_X"}, {"--cipher-suites", "unexpected TLS cipher suite"}},
        BadCase{{"--tls-min-version=TLS1.1"}, {"--tls-min-version", "TLS1.2 or TLS1.3"}},
        BadCase{{"--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"},
                {"min version (TLS1.3) is greater than max version (TLS1.2)"}},
        BadCase{{"--tls-min-version=TLS1.3", "--cipher-suites=TLS_AES_128_GCM_SHA256"},
                {"cipher suites cannot be configured when only TLS1.3 is enabled"}},
        BadCase{{"--self-signed-cert-validity=0"}, {"--self-signed-cert-validity"}},
        BadCase{{"--listen-peer-urls=nonsense"}, {"--listen-peer-urls", "http://127.0.0.1:2379"}},
        BadCase{{"--cert-file=x"}, {"--cert-file, --key-file must both be present"}},
        BadCase{{"--auth-token=jwt"}, {"--auth-token", "sign-method"}},
        BadCase{{"--unsafe-no-fsync"}, {"--unsafe-no-fsync", "cannot be used"}},
        BadCase{{"--pre-vote=false"}, {"--pre-vote", "must be true"}},
        BadCase{{"--log-level=loud"}, {"--log-level", "debug"}},
        BadCase{{"--logger=capnslog"}, {"--logger", "zap"}},
        BadCase{{"--metrics=all"}, {"--metrics", "basic or extensive"}},
        BadCase{{"--feature-gates=Nonsense=true"}, {"unrecognized feature gate: Nonsense"}},
        BadCase{{"--feature-gates=AllAlpha"}, {"missing bool value for AllAlpha"}},
        BadCase{{"--feature-gates=AllAlpha=maybe"}, {"--feature-gates", "true or false"}},
        BadCase{{"--config-file=/nonexistent"}, {"--config-file", "/nonexistent", "No such file"}},
        BadCase{{"--config-file=/"}, {"--config-file", "/", "directory"}},
        BadCase{{"--version", "--max-wals=many"}, {"--max-wals"}}));

// Of a member that has its state already, nobody asks this.
TEST(FlagsTest, TheInitialClusterIsCheckedByItself) {
  const auto why_not = [](std::vector<std::string> arguments) {
    const auto line = Parse(std::move(arguments));
    EXPECT_TRUE(line.ok()) << line.status();
    return std::string(CheckInitialCluster(line->config).message());
  };
  EXPECT_THAT(why_not({"--initial-cluster=x=http://h:1"}),
              AllOf(HasSubstr("--initial-cluster"), HasSubstr("does not list this member"),
                    HasSubstr("default")));
  EXPECT_THAT(why_not({"--initial-cluster=default=http://h:1,b=http://h:1"}), HasSubstr("to both"));
  EXPECT_THAT(
      why_not({"--initial-cluster=default=http://h:1", "--initial-advertise-peer-urls=http://h:2"}),
      HasSubstr("--initial-advertise-peer-urls"));
  EXPECT_THAT(why_not({"--initial-cluster=default=https://h:1"}), HasSubstr("--peer-cert-file"));
  EXPECT_EQ(why_not({"--initial-cluster=default=http://h:1"}), "");
  EXPECT_EQ(why_not({}), "");
}

TEST(FlagsTest, DiscoveryIsSetUpByItsFlags) {
  const auto line = Parse({"--discovery-token=t", "--discovery-endpoints=h:1, http://g:2",
                           "--discovery-request-timeout=7s", "--discovery-insecure-transport=false",
                           "--discovery-user=u:p", "--discovery-cacert=ca"});
  ASSERT_TRUE(line.ok()) << line.status();
  const DiscoverySettings& discovery = line->config.discovery;
  EXPECT_EQ(discovery.token, "t");
  EXPECT_THAT(discovery.endpoints, ElementsAre("h:1", "http://g:2"));
  EXPECT_EQ(discovery.request_timeout, std::chrono::seconds(7));
  EXPECT_FALSE(discovery.insecure_transport);
  EXPECT_EQ(discovery.user, "u:p");
  EXPECT_EQ(discovery.ca_file, "ca");
}

TEST(FlagsTest, ARefusedSwitchThatIsOffAsksForNothing) {
  EXPECT_TRUE(Parse({"--auto-tls=false", "--force-new-cluster=false"}).ok());
}

TEST(FlagsTest, WhatHasNoMeaningIsAcceptedAndSaid) {
  const auto line = Parse({"--max-snapshots=3", "--memory-mlock", "--max-wals", "5"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->warnings.size(), 3u);
  EXPECT_THAT(line->warnings, Contains(HasSubstr("--max-snapshots is ignored")));
}

// CONCLAVE_WRITE_DOCS=1 in the environment brings the manual up to date.
TEST(FlagsTest, TheManualHasTheTable) {
  constexpr char kManual[] = "docs/configuration.md";
  const std::string begin = "<!-- flags: written by app_flags_test -->\n";
  const std::string end = "<!-- end of flags -->\n";
  std::ifstream file(kManual);
  ASSERT_TRUE(file) << "run from the source directory";
  std::stringstream stream;
  stream << file.rdbuf();
  std::string text = stream.str();
  const size_t from = text.find(begin);
  const size_t to = text.find(end);
  ASSERT_TRUE(from != std::string::npos && to != std::string::npos && from < to);
  const std::string table = ManualText();
  if (std::getenv("CONCLAVE_WRITE_DOCS") != nullptr) {
    text.replace(from + begin.size(), to - from - begin.size(), table);
    std::ofstream(kManual) << text;
    GTEST_SKIP() << kManual << " is written";
  }
  EXPECT_EQ(text.substr(from + begin.size(), to - from - begin.size()), table)
      << "CONCLAVE_WRITE_DOCS=1 " << testing::internal::GetArgvs()[0] << " writes it anew";
}

TEST(FlagsTest, HelpNamesEveryFlagOnce) {
  const std::string help = HelpText();
  std::set<std::string> names;
  for (const FlagGroup& group : FlagGroups()) {
    for (const FlagEntry& flag : group.flags) {
      EXPECT_TRUE(names.insert(flag.name).second) << flag.name << " stands twice in the table";
      EXPECT_THAT(help, HasSubstr("  --" + std::string(flag.name)));
      EXPECT_EQ(flag.fate == FlagFate::kWorks, flag.set != nullptr) << flag.name;
    }
  }
  EXPECT_TRUE(Parse({"--help"})->help);
  EXPECT_TRUE(Parse({"--version"})->version);
  EXPECT_TRUE(Parse({"--version=true"})->version);
  EXPECT_FALSE(Parse({"--version=false"})->version);
}

}  // namespace
}  // namespace conclave::app
