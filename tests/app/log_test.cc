// The lines of the log: their form, their levels, and where they go.
#include "conclave/server/app/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
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

// Of what stands in the log's folder.
std::vector<std::filesystem::path> FilesIn(const std::string& path) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(path).parent_path())) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string Unpacked(const std::filesystem::path& path) {
  std::string text(1 << 20, '\0');
  gzFile file = gzopen(path.c_str(), "rb");
  const int size = file == nullptr ? -1 : gzread(file, text.data(), text.size());
  if (file != nullptr) gzclose(file);
  text.resize(static_cast<size_t>(std::max(size, 0)));
  return text;
}

TEST_F(LogFileTest, AFullFileIsPutAside) {
  {
    auto log = Log::Open({.outputs = {path_}, .rotation = {.file_bytes_max = 1000, .files = 2}});
    ASSERT_TRUE(log.ok()) << log.status();
    for (int i = 0; i < 100; ++i) (*log)->Info("a line of the log");
  }
  const auto files = FilesIn(path_);
  EXPECT_EQ(files.size(), 3u);
  for (const auto& file : files) {
    EXPECT_LE(std::filesystem::file_size(file), 1000u) << file;
    // log-2006-01-02T15-04-05.000
    if (file != path_) {
      EXPECT_THAT(file.filename().string(),
                  ::testing::MatchesRegex("log-....-..-..T..-..-..\\...."));
    }
  }
}

TEST_F(LogFileTest, WhatIsPutAsideIsPackedAndNothingIsLost) {
  const std::string path = path_ + ".log";
  {
    auto log =
        Log::Open({.outputs = {path}, .rotation = {.file_bytes_max = 5000, .compress = true}});
    ASSERT_TRUE(log.ok()) << log.status();
    for (int i = 0; i < 100; ++i) (*log)->Info(absl::StrCat("line ", i, "."));
  }
  std::string all;
  for (const auto& file : FilesIn(path)) {
    if (file == path) continue;
    EXPECT_THAT(file.filename().string(),
                ::testing::MatchesRegex("log-....-..-..T..-..-..\\....\\.log\\.gz"));
    all += Unpacked(file);
  }
  all += conclave::testing::ReadFile(path);
  size_t at = 0;
  for (int i = 0; i < 100; ++i) {
    at = all.find(absl::StrCat("line ", i, "."), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST_F(LogFileTest, WhatIsOldGoesAndWhatIsNoLogStays) {
  const auto put = [&](const std::string& ending) { std::ofstream(path_ + ending) << "x"; };
  put("-2001-02-03T04-05-06.789");
  put("-2001-02-03T04-05-06.789.gz");
  put("-notes");
  put("-9999-02-03T04-05-06.789");
  {
    auto log = Log::Open({.outputs = {path_},
                          .rotation = {.file_bytes_max = 1000, .age_max = std::chrono::hours(24)}});
    ASSERT_TRUE(log.ok()) << log.status();
  }
  EXPECT_THAT(FilesIn(path_),
              ::testing::ElementsAre(std::filesystem::path(path_),
                                     std::filesystem::path(path_ + "-9999-02-03T04-05-06.789"),
                                     std::filesystem::path(path_ + "-notes")));
}

// The journal's side of its protocol.
class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(path_.size(), sizeof address.sun_path);
    path_.copy(address.sun_path, path_.size());
    socket_ = socket(AF_UNIX, SOCK_DGRAM, 0);
    ASSERT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  void TearDown() override { close(socket_); }

  // The fields of the next entry, as a datagram or as the file that one brings.
  std::string NextEntry() {
    std::string data(1 << 16, '\0');
    iovec part{data.data(), data.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t size = recvmsg(socket_, &header, 0);
    EXPECT_GE(size, 0);
    data.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    const cmsghdr* message = CMSG_FIRSTHDR(&header);
    if (message == nullptr) return data;
    EXPECT_EQ(data, "") << "all of it is in the file";
    int file = -1;
    memcpy(&file, CMSG_DATA(message), sizeof file);
    EXPECT_EQ(fcntl(file, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);
    data.resize(static_cast<size_t>(lseek(file, 0, SEEK_END)));
    EXPECT_EQ(pread(file, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
    close(file);
    return data;
  }

  conclave::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_.path("socket");
  int socket_ = -1;
};

TEST_F(JournalTest, ALineIsAnEntryWithItsPriority) {
  auto log = Log::Open({.outputs = {"systemd/journal"}, .journal_socket = path_});
  ASSERT_TRUE(log.ok()) << log.status();
  (*log)->Info("for the journal");
  std::string entry = NextEntry();
  EXPECT_THAT(entry, HasSubstr("PRIORITY=6\n"));
  EXPECT_THAT(entry, HasSubstr("SYSLOG_IDENTIFIER=conclave\n"));
  EXPECT_THAT(entry, HasSubstr("MESSAGE={\"level\":\"info\","));
  EXPECT_THAT(entry, HasSubstr("\"msg\":\"for the journal\"}\n"));
  (*log)->Warn("w");
  EXPECT_THAT(NextEntry(), HasSubstr("PRIORITY=4\n"));
  (*log)->Error("e");
  EXPECT_THAT(NextEntry(), HasSubstr("PRIORITY=3\n"));
}

TEST_F(JournalTest, ALineThatIsTooLongForADatagramComesAsAFile) {
  auto log = Log::Open({.outputs = {"systemd/journal"}, .journal_socket = path_});
  ASSERT_TRUE(log.ok()) << log.status();
  const std::string text(8 << 20, 'x');
  (*log)->Info(text);
  EXPECT_THAT(NextEntry(), HasSubstr("MESSAGE={"));
}

TEST_F(JournalTest, WithoutAJournalItIsSaidAtTheStart) {
  const auto log =
      Log::Open({.outputs = {"systemd/journal"}, .journal_socket = directory_.path("nobody")});
  EXPECT_THAT(std::string(log.status().message()), HasSubstr("no journal at"));
}

TEST_F(JournalTest, WhatTheJournalDoesNotTakeGoesToStderr) {
  auto log = Log::Open({.outputs = {"systemd/journal"}, .journal_socket = path_});
  ASSERT_TRUE(log.ok()) << log.status();
  std::filesystem::remove(path_);
  ::testing::internal::CaptureStderr();
  (*log)->Info("nobody there");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("nobody there"));
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
