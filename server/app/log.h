// The server's log: one JSON object a line, with etcd's keys and its names of levels.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/app/journal.h"
#include "conclave/server/app/rotated_file.h"
#include "conclave/server/node/io.h"

namespace conclave::app {

enum class LogFormat : uint8_t { kJson, kConsole };

struct LogOptions {
  std::string level = "info";  // debug, info, warn, error, panic, fatal
  // "default", "stderr", "stdout", "systemd/journal", or paths
  std::vector<std::string> outputs = {"default"};
  LogFormat format = LogFormat::kJson;
  LogRotation rotation{};
  std::string journal_socket = kJournalSocket;
};

// kJson:    {"level":"info","ts":"2006-01-02T15:04:05.999999Z","caller":"server/node","msg":"...",
//           further fields...}
// kConsole: ts, level, caller, message and the fields as JSON, with tabs between them
// Thread-safe. A line is written with one write; nothing is buffered.
class Log {
 public:
  //   InvalidArgument  a file cannot be opened, or there is no journal
  static absl::StatusOr<std::shared_ptr<Log>> Open(const LogOptions& options);
  // Drops everything.
  static std::shared_ptr<Log> Silent();
  ~Log();

  void Write(std::string_view caller, const node::LogLine& line);
  void Info(std::string_view message, std::vector<std::pair<std::string, std::string>> fields = {});
  void Warn(std::string_view message, std::vector<std::pair<std::string, std::string>> fields = {});
  void Error(std::string_view message,
             std::vector<std::pair<std::string, std::string>> fields = {});

 private:
  struct Sinks;
  Log(std::unique_ptr<Sinks> sinks, LogFormat format);
  const std::unique_ptr<Sinks> sinks_;
  const LogFormat format_;
};

// The line without its end.
std::string FormatLine(LogFormat format, std::string_view level, int64_t unix_micros,
                       std::string_view caller, const node::LogLine& line);

}  // namespace conclave::app
