// The server's log: one JSON object a line, with etcd's keys and its names of levels.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/node/io.h"

namespace conclave::app {

// {"level":"info","ts":"2006-01-02T15:04:05.999999Z","caller":"server/node","msg":"...", further
// fields...} Thread-safe. A line is written with one write; nothing is buffered.
class Log {
 public:
  // `level`: debug, info, warn, error, panic, fatal. `outputs`: "default" and "stderr", "stdout",
  // or paths.
  //   InvalidArgument  a file cannot be opened
  static absl::StatusOr<std::shared_ptr<Log>> Open(std::string_view level,
                                                   const std::vector<std::string>& outputs);
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
  explicit Log(std::unique_ptr<Sinks> sinks);
  const std::unique_ptr<Sinks> sinks_;
};

// The line without its end.
std::string FormatLine(std::string_view level, int64_t unix_micros, std::string_view caller,
                       const node::LogLine& line);

}  // namespace conclave::app
