#include "conclave/server/app/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace conclave::app {
namespace {

constexpr char kCaller[] = "server/app";

spdlog::level::level_enum LevelOf(node::Severity severity) {
  switch (severity) {
    case node::Severity::kDebug:
      return spdlog::level::debug;
    case node::Severity::kInfo:
      return spdlog::level::info;
    case node::Severity::kWarning:
      return spdlog::level::warn;
    case node::Severity::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::string_view NameOf(node::Severity severity) {
  switch (severity) {
    case node::Severity::kDebug:
      return "debug";
    case node::Severity::kInfo:
      return "info";
    case node::Severity::kWarning:
      return "warn";
    case node::Severity::kError:
      return "error";
  }
  return "error";
}

spdlog::level::level_enum ThresholdOf(std::string_view level) {
  if (level == "debug") return spdlog::level::debug;
  if (level == "info") return spdlog::level::info;
  if (level == "warn") return spdlog::level::warn;
  if (level == "error") return spdlog::level::err;
  return spdlog::level::critical;
}

void AppendJson(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f) {
          absl::StrAppendFormat(out, "\\u%04x", static_cast<unsigned char>(c));
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

}  // namespace

struct Log::Sinks {
  explicit Sinks(std::vector<spdlog::sink_ptr> sinks)
      : logger("conclave", sinks.begin(), sinks.end()) {
    logger.set_pattern("%v");
    logger.flush_on(spdlog::level::trace);
  }
  spdlog::logger logger;
};

Log::Log(std::unique_ptr<Sinks> sinks) : sinks_(std::move(sinks)) {}
Log::~Log() = default;

absl::StatusOr<std::shared_ptr<Log>> Log::Open(std::string_view level,
                                               const std::vector<std::string>& outputs) {
  std::vector<spdlog::sink_ptr> sinks;
  for (const std::string& output : outputs) {
    if (output == "default" || output == "stderr") {
      sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    } else if (output == "stdout") {
      sinks.push_back(std::make_shared<spdlog::sinks::stdout_sink_mt>());
    } else {
      try {
        sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(output));
      } catch (const spdlog::spdlog_ex& error) {
        return absl::InvalidArgumentError(
            absl::StrCat("--log-outputs: cannot write ", output, ": ", error.what()));
      }
    }
  }
  auto log = std::shared_ptr<Log>(new Log(std::make_unique<Sinks>(std::move(sinks))));
  log->sinks_->logger.set_level(ThresholdOf(level));
  return log;
}

std::shared_ptr<Log> Log::Silent() {
  auto log =
      std::shared_ptr<Log>(new Log(std::make_unique<Sinks>(std::vector<spdlog::sink_ptr>())));
  log->sinks_->logger.set_level(spdlog::level::off);
  return log;
}

std::string FormatLine(std::string_view level, int64_t unix_micros, std::string_view caller,
                       const node::LogLine& line) {
  const std::time_t seconds = static_cast<std::time_t>(unix_micros / 1'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::string out = absl::StrFormat(
      "{\"level\":\"%s\",\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ\",\"caller\":",
      std::string(level), utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
      utc.tm_sec, static_cast<int>(unix_micros % 1'000'000));
  AppendJson(caller, &out);
  out += ",\"msg\":";
  AppendJson(line.message, &out);
  for (const auto& [name, value] : line.fields) {
    out.push_back(',');
    AppendJson(name, &out);
    out.push_back(':');
    AppendJson(value, &out);
  }
  out.push_back('}');
  return out;
}

void Log::Write(std::string_view caller, const node::LogLine& line) {
  const auto level = LevelOf(line.severity);
  if (!sinks_->logger.should_log(level)) return;
  const int64_t now = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  const std::string text = FormatLine(NameOf(line.severity), now, caller, line);
  sinks_->logger.log(level, spdlog::string_view_t(text.data(), text.size()));
}

void Log::Info(std::string_view message, std::vector<std::pair<std::string, std::string>> fields) {
  Write(kCaller, {node::Severity::kInfo, std::string(message), std::move(fields)});
}
void Log::Warn(std::string_view message, std::vector<std::pair<std::string, std::string>> fields) {
  Write(kCaller, {node::Severity::kWarning, std::string(message), std::move(fields)});
}
void Log::Error(std::string_view message, std::vector<std::pair<std::string, std::string>> fields) {
  Write(kCaller, {node::Severity::kError, std::string(message), std::move(fields)});
}

}  // namespace conclave::app
