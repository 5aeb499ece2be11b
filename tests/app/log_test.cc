// The lines of the log: their form, their levels, and where they go.
#include "conclave/server/app/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "conclave/tests/app/server_process.h"

namespace conclave::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNoon = 1'700'000'000'000'000;  // 2023-11-14T22:13:20Z

node::LogLine Line() {
  return {.severity = node::Severity::kInfo,
          .message = "saved \"it\"\n",
          .fields = {{"path", "a\\b"}},
          .numbers = {{"bytes", 42}},
          .took = std::chrono::milliseconds(1500)};
}

TEST(LogTest, AJsonLineHasEtcdsKeysInTheirOrder) {
  EXPECT_EQ(FormatLine(LogFormat::kJson, "info", kNoon + 120'000, "server/app", Line()),
            R"({"level":"info","ts":"2023-11-14T22:13:20.12Z","caller":"server/app",)"
            R"("msg":"saved \"it\"\n","start time":"2023-11-14T22:13:18.62Z","took":"1.5s",)"
            R"("path":"a\\b","bytes":42})");
}

TEST(LogTest, TheTimeHasNoZerosAtItsEnd) {
  EXPECT_THAT(FormatLine(LogFormat::kJson, "info", kNoon, "c", {}),
              HasSubstr("\"2023-11-14T22:13:20Z\""));
  EXPECT_THAT(FormatLine(LogFormat::kJson, "info", kNoon + 1, "c", {}),
              HasSubstr("\"2023-11-14T22:13:20.000001Z\""));
}

TEST(LogTest, AnyBytesMakeOneLineOfJson) {
  node::LogLine line;
  for (int c = 1; c < 128; ++c) line.message.push_back(static_cast<char>(c));
  line.fields = {{line.message, line.message}};
  const std::string text = FormatLine(LogFormat::kJson, "warn", kNoon, "c", line);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["msg"], line.message);
  EXPECT_EQ(json[line.message], line.message);
}

TEST(LogTest, AConsoleLineHasTabs) {
  EXPECT_EQ(FormatLine(LogFormat::kConsole, "info", kNoon, "server/app", Line()),
            "2023-11-14T22:13:20Z\tinfo\tserver/app\tsaved \\\"it\\\"\\n\t"
            R"({"start time":"2023-11-14T22:13:18.5Z","took":"1.5s","path":"a\\b","bytes":42})");
  EXPECT_EQ(FormatLine(LogFormat::kConsole, "warn", kNoon, "c", {.message = "m"}),
            "2023-11-14T22:13:20Z\twarn\tc\tm");
}

class LogFileTest : public ::testing::Test {
 protected:
  conclave::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_.path("log");
};

TEST_F(LogFileTest, TheLevelDecidesWhatIsWritten) {
  auto log = Log::Open({.level = "warn", .outputs = {path_}});
  ASSERT_TRUE(log.ok()) << log.status();
  (*log)->Info("quiet");
  (*log)->Warn("heard");
  (*log)->Error("loud");
  const std::string text = conclave::testing::ReadFile(path_);
  EXPECT_THAT(text, Not(HasSubstr("quiet")));
  EXPECT_THAT(text, HasSubstr("\"level\":\"warn\""));
  EXPECT_THAT(text, HasSubstr("\"level\":\"error\""));
}

TEST_F(LogFileTest, AFullFileIsPutAside) {
  auto log = Log::Open({.outputs = {path_}, .rotation = {.file_bytes_max = 1000, .files = 2}});
  ASSERT_TRUE(log.ok()) << log.status();
  for (int i = 0; i < 100; ++i) (*log)->Info("a line of the log");
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(path_).parent_path())) {
    ++files;
    EXPECT_LE(entry.file_size(), 1000u) << entry.path();
  }
  EXPECT_EQ(files, 3u);
}

TEST_F(LogFileTest, AFileThatCannotBeOpenedIsNamed) {
  const std::string folder = std::filesystem::path(path_).parent_path();
  const auto log = Log::Open({.outputs = {folder}});
  EXPECT_THAT(std::string(log.status().message()), HasSubstr(folder));
}

}  // namespace
}  // namespace conclave::app

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A whole life, at the default level: what tools wait for is there, and nothing is an error.
TEST(ServerLogTest, TellsALifeInJson) {
  TemporaryDirectory directory;
  SingleServer server(directory.path("data"),
                      {"--name=m1", "--snapshot-count=20", "--warning-unary-request-duration=1ms",
                       "--log-outputs=stderr," + directory.path("file.log")});
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(Put(server.endpoint(), "key", std::string(1000, 's'), std::chrono::seconds(20)));
  }
  {
    auto stub = etcdserverpb::KV::NewStub(
        grpc::CreateChannel(server.endpoint(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    etcdserverpb::CompactionRequest request;
    request.set_revision(20);
    etcdserverpb::CompactionResponse response;
    ASSERT_TRUE(stub->Compact(&context, request, &response).ok());
  }
  for (const char* line : {"saved snapshot", "finished scheduled compaction"}) {
    ASSERT_TRUE(WaitFor([&] { return server.Output().find(line) != std::string::npos; }))
        << line << ":\n"
        << server.Output();
  }
  server.process_->Signal(SIGTERM);
  EXPECT_EQ(server.process_->Wait().value_or(-1), 0);

  std::vector<std::string> errors;
  std::map<std::string, nlohmann::json> lines;
  std::stringstream text(server.Output());
  for (std::string line; std::getline(text, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(json.is_object()) << line;
    for (const char* key : {"level", "ts", "caller", "msg"})
      ASSERT_TRUE(json.contains(key)) << line;
    const std::string level = json["level"];
    if (level != "info" && level != "warn" && level != "debug") errors.push_back(line);
    lines[json["msg"]] = json;
  }
  EXPECT_THAT(errors, IsEmpty());
  for (const char* message :
       {"ready to serve client requests", "published local member to cluster through raft",
        "serving client traffic insecurely; this is strongly discouraged!",
        "enabled capabilities for version", "saved snapshot", "finished scheduled compaction"}) {
    EXPECT_TRUE(lines.contains(message)) << message;
  }
  EXPECT_TRUE(lines["saved snapshot"]["snapshot-index"].is_number());
  EXPECT_EQ(lines["finished scheduled compaction"]["compact-revision"], 20);
  EXPECT_EQ(lines["enabled capabilities for version"]["cluster-version"], "3.6");
  EXPECT_EQ(lines["published local member to cluster through raft"]["local-member-attributes"],
            "{Name:m1 ClientURLs:[http://" + server.endpoint() + "]}");
  EXPECT_EQ(ReadFile(directory.path("file.log")), server.Output());
}

TEST(ServerLogTest, ASlowRequestIsToldWithSizesAndDuration) {
  TemporaryDirectory directory;
  SingleServer server(directory.path("data"),
                      {"--warning-unary-request-duration=1ms", "--log-format=json"});
  server.Start();
  ASSERT_TRUE(server.WaitReady()) << server.Output();
  // Large enough that its way to the disk takes more than a millisecond, sooner or later.
  ASSERT_TRUE(WaitFor([&] {
    EXPECT_TRUE(
        Put(server.endpoint(), "secret-key", std::string(1 << 20, 's'), std::chrono::seconds(20)));
    return server.Output().find("request stats") != std::string::npos;
  }));
  std::stringstream text(server.Output());
  bool found = false;
  for (std::string line; std::getline(text, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json["msg"] != "request stats") continue;
    found = true;
    EXPECT_EQ(json["level"], "warn");
    EXPECT_EQ(json["response type"], "/etcdserverpb.KV/Put");
    EXPECT_GT(json["request size"], 1 << 20);
    EXPECT_GT(json["response size"], 0);
    EXPECT_TRUE(json["time spent"].is_string() && json["start time"].is_string());
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(server.Output().find("secret-key"), std::string::npos);
}

TEST(ServerDirectoryTest, TheLogMayStandInADirectoryOfItsOwn) {
  TemporaryDirectory directory;
  const std::string log_flag = "--wal-dir=" + directory.path("log");
  const int client_port = FreePort();
  const int peer_port = FreePort();
  for (const char* value : {"1", "2"}) {
    SingleServer server(directory.path("data"), {log_flag}, client_port, peer_port);
    server.Start();
    ASSERT_TRUE(server.WaitReady()) << server.Output();
    ASSERT_TRUE(Put(server.endpoint(), value, value, std::chrono::seconds(20)));
    EXPECT_FALSE(std::filesystem::exists(directory.path("data/wal")));
    EXPECT_FALSE(std::filesystem::is_empty(directory.path("log")));
    // Nobody else gets at it.
    SingleServer other(directory.path("other"), {log_flag});
    other.Start();
    EXPECT_EQ(other.process_->Wait().value_or(-1), 1);
    EXPECT_THAT(other.Output(), HasSubstr(directory.path("log")));
    server.process_->Signal(SIGKILL);
    EXPECT_TRUE(server.process_->Wait().ok());
  }
  SingleServer last(directory.path("data"), {log_flag}, client_port, peer_port);
  last.Start();
  ASSERT_TRUE(last.WaitReady()) << last.Output();
  EXPECT_EQ(ReadAll(last.endpoint()).size(), 2u);
  last.process_->Signal(SIGTERM);
  EXPECT_TRUE(last.process_->Wait().ok());
  // Without its log it is not that member any more.
  EXPECT_EQ(RunToEnd(std::vector<std::string>(last.flags_.begin() + 1, last.flags_.end() - 1)).code,
            1);
}

TEST(ServerPortTest, SeveralProcessesMayShareAPortIfAllSaySo) {
  TemporaryDirectory directory;
  SingleServer first(directory.path("a"), {"--socket-reuse-port"});
  first.Start();
  ASSERT_TRUE(first.WaitReady()) << first.Output();
  SingleServer second(directory.path("b"), {"--socket-reuse-port"}, first.client_port_,
                      first.peer_port_);
  second.Start();
  EXPECT_TRUE(second.WaitReady()) << second.Output();
  SingleServer third(directory.path("c"), {}, first.client_port_);
  third.Start();
  EXPECT_EQ(third.process_->Wait().value_or(-1), 1);
}

}  // namespace
}  // namespace conclave::testing
