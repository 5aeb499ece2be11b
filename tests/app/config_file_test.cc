// The config file: what it may hold, what it beats, and how it names what is wrong.
#include "conclave/server/app/flags/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "conclave/server/app/flags.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/tests/app/server_process.h"

namespace conclave::app {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Applied {
  absl::Status status;
  Config config;
  std::vector<std::string> warnings;
};

Applied Apply(const std::string& text) {
  Applied applied;
  applied.status = ApplyConfigText(text, "c.yml", &applied.config, &applied.warnings);
  return applied;
}

TEST(ConfigFileTest, KeysAreTheFlagsNames) {
  const Applied applied = Apply(R"(
name: m1
data-dir: /var/lib/m1
heartbeat-interval: 50
election-timeout: 500
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
initial-cluster: m1=http://h:1
metrics: extensive
feature-gates: InitialCorruptCheck=true
experimental-watch-progress-notify-interval: 5s
)");
  ASSERT_TRUE(applied.status.ok()) << applied.status;
  EXPECT_EQ(applied.config.name, "m1");
  EXPECT_EQ(applied.config.data_dir, "/var/lib/m1");
  EXPECT_EQ(applied.config.heartbeat_interval, std::chrono::milliseconds(50));
  EXPECT_EQ(applied.config.listen_client_urls.size(), 2u);
  EXPECT_TRUE(applied.config.extensive_metrics);
  EXPECT_TRUE(applied.config.feature_gates.at("InitialCorruptCheck"));
  EXPECT_EQ(applied.config.watch_progress_notify_interval, std::chrono::seconds(5));
  EXPECT_THAT(applied.warnings, IsEmpty());
}

TEST(ConfigFileTest, JsonIsYaml) {
  const Applied applied = Apply(R"({"name": "m2", "log-outputs": ["stdout", "/tmp/x.log"]})");
  ASSERT_TRUE(applied.status.ok()) << applied.status;
  EXPECT_EQ(applied.config.name, "m2");
  EXPECT_THAT(applied.config.log.outputs, ElementsAre("stdout", "/tmp/x.log"));
}

TEST(ConfigFileTest, AnIntegerDurationCountsNanoseconds) {
  const Applied number = Apply("grpc-keepalive-min-time: 3000000000");
  ASSERT_TRUE(number.status.ok()) << number.status;
  EXPECT_EQ(number.config.grpc_keepalive_min_time, std::chrono::seconds(3));
  EXPECT_EQ(Apply("grpc-keepalive-min-time: 4s").config.grpc_keepalive_min_time,
            std::chrono::seconds(4));
  // A text, whose bare number counts hours.
  EXPECT_EQ(Apply("auto-compaction-retention: '2'").config.auto_compaction_period,
            std::chrono::hours(2));
}

TEST(ConfigFileTest, AKeyWithoutAValueIsAsGoodAsNone) {
  const Applied applied = Apply(
      "name:\nwal-dir: ''\ndata-dir: ~\nclient-transport-security:\n"
      "peer-transport-security:\n  cert-file:\n  client-cert-auth: false\n");
  ASSERT_TRUE(applied.status.ok()) << applied.status;
  EXPECT_EQ(applied.config.name, "default");
  EXPECT_TRUE(Apply("").status.ok());
  EXPECT_TRUE(Apply("# nothing\n").status.ok());
}

TEST(ConfigFileTest, UnknownKeysAreToleratedAndSaid) {
  const Applied applied = Apply(
      "name: m1\nnonsense: [1, {a: b}]\ncert-file: x\npeer-transport-security: {colour: red}\n");
  ASSERT_TRUE(applied.status.ok()) << applied.status;
  EXPECT_THAT(applied.warnings, ElementsAre(HasSubstr("\"nonsense\" is ignored"),
                                            AllOf(HasSubstr("\"cert-file\""),
                                                  HasSubstr("client-transport-security.cert-file")),
                                            HasSubstr("\"peer-transport-security.colour\"")));
}

TEST(ConfigFileTest, EveryFlagHasOnePlaceInTheFile) {
  for (const FlagGroup& group : FlagGroups()) {
    for (const FlagEntry& flag : group.flags) {
      const bool own_place = flag.file_key != nullptr;
      EXPECT_EQ(
          FindFileKey(own_place ? flag.file_section : "", own_place ? flag.file_key : flag.name),
          &flag)
          << flag.name;
    }
  }
}

struct WrongText {
  const char* text;
  const char* word;
};

class WrongTextTest : public ::testing::TestWithParam<WrongText> {};

TEST_P(WrongTextTest, IsNamedWithItsLine) {
  const Applied applied = Apply(GetParam().text);
  ASSERT_EQ(applied.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(applied.status.message()),
              AllOf(HasSubstr("c.yml:2"), HasSubstr(GetParam().word)));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongTextTest,
    ::testing::Values(WrongText{"a: 1\nheartbeat-interval: fast", "heartbeat-interval"},
                      WrongText{"name: a\nname: b", "\"name\" stands twice"},
                      WrongText{"a: 1\nname: [a, b]", "single value"},
                      WrongText{"a: 1\nlog-outputs: [[a]]", "lists words"},
                      WrongText{"a: 1\n[x]: 1", "a key must be a word"},
                      WrongText{"a: 1\npeer-transport-security: yes", "must hold keys"},
                      WrongText{"a: 1\n  b: 2", ""}, WrongText{"a: 1\nb: 'x", ""},
                      WrongText{"\n- a", "must hold keys and values"}));

TEST(ConfigFileTest, DeepNestingEndsWithAnError) {
  EXPECT_FALSE(Apply(std::string(100'000, '[')).status.ok());
  EXPECT_FALSE(Apply(std::string(100'000, '{')).status.ok());
}

class FileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path = directory_.path("c.yml");
    std::ofstream(path) << text;
    return path;
  }
  conclave::testing::TemporaryDirectory directory_;
};

TEST_F(FileTest, BeatsFlagsAndVariables) {
  const std::string path = Write("name: file\n");
  const std::vector<std::string> arguments = {"--name=flag", "--config-file=" + path,
                                              "--heartbeat-interval=50"};
  const auto line = ParseCommandLine(arguments, {{"ETCD_DATA_DIR", "/elsewhere"}});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.name, "file");
  EXPECT_EQ(line->config.data_dir, "file.conclave");
  EXPECT_EQ(line->config.heartbeat_interval, std::chrono::milliseconds(100));
  EXPECT_THAT(line->warnings,
              ElementsAre(HasSubstr("--name is ignored"), HasSubstr("--heartbeat-interval"),
                          HasSubstr("ETCD_DATA_DIR is ignored")));
}

TEST_F(FileTest, MayBeNamedByItsVariable) {
  const auto line = ParseCommandLine({}, {{"ETCD_CONFIG_FILE", Write("name: v\n")}});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.name, "v");
}

TEST_F(FileTest, IsLimited) {
  const std::string path = Write(std::string(kConfigFileBytesMax + 1, '#'));
  EXPECT_THAT(std::string(ReadConfigFile(path).status().message()), HasSubstr("larger than"));
  EXPECT_EQ(ReadConfigFile(Write(std::string(kConfigFileBytesMax, '#')))->size(),
            kConfigFileBytesMax);
}

}  // namespace
}  // namespace conclave::app
