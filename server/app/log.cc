#include "conclave/server/app/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"

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

// As Go writes it by 2006-01-02T15:04:05.999999Z0700: without zeros at the end.
std::string Timestamp(int64_t unix_micros) {
  const std::time_t seconds = static_cast<std::time_t>(unix_micros / 1'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::string text = absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%06d", utc.tm_year + 1900,
                                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                                     utc.tm_sec, static_cast<int>(unix_micros % 1'000'000));
  text.resize(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + "Z";
}

void AppendField(std::string_view name, std::string_view value, std::string* out) {
  if (!out->empty() && out->back() != '{') out->push_back(',');
  AppendJson(name, out);
  out->push_back(':');
  AppendJson(value, out);
}

void AppendFields(int64_t unix_micros, const node::LogLine& line, std::string* out) {
  if (line.took.has_value()) {
    AppendField("start time", Timestamp(unix_micros - *line.took / std::chrono::microseconds(1)),
                out);
    AppendField("took", absl::FormatDuration(absl::Nanoseconds(line.took->count())), out);
  }
  for (const auto& [name, value] : line.fields) AppendField(name, value, out);
  for (const auto& [name, value] : line.numbers) {
    if (out->back() != '{') out->push_back(',');
    AppendJson(name, out);
    absl::StrAppend(out, ":", value);
  }
}

absl::StatusOr<spdlog::sink_ptr> OpenSink(const std::string& output, const LogOptions& options) {
  if (output == "default" || output == "stderr") {
    return std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  if (output == "stdout") return std::make_shared<spdlog::sinks::stdout_sink_mt>();
  auto sink = output == "systemd/journal" ? OpenJournal(options.journal_socket)
                                          : OpenRotatedFile(output, options.rotation);
  if (!sink.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--log-outputs: cannot write ", output, ": ",
                                                   std::string(sink.status().message())));
  }
  return sink;
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

Log::Log(std::unique_ptr<Sinks> sinks, LogFormat format)
    : sinks_(std::move(sinks)), format_(format) {}
Log::~Log() = default;

absl::StatusOr<std::shared_ptr<Log>> Log::Open(const LogOptions& options) {
  std::vector<spdlog::sink_ptr> sinks;
  for (const std::string& output : options.outputs) {
    CONCLAVE_ASSIGN_OR_RETURN(spdlog::sink_ptr sink, OpenSink(output, options));
    sinks.push_back(std::move(sink));
  }
  auto log =
      std::shared_ptr<Log>(new Log(std::make_unique<Sinks>(std::move(sinks)), options.format));
  log->sinks_->logger.set_level(ThresholdOf(options.level));
  return log;
}

std::shared_ptr<Log> Log::Silent() {
  auto log = std::shared_ptr<Log>(
      new Log(std::make_unique<Sinks>(std::vector<spdlog::sink_ptr>()), LogFormat::kJson));
  log->sinks_->logger.set_level(spdlog::level::off);
  return log;
}

std::string FormatLine(LogFormat format, std::string_view level, int64_t unix_micros,
                       std::string_view caller, const node::LogLine& line) {
  std::string out;
  if (format == LogFormat::kConsole) {
    std::string fields = "{";
    AppendFields(unix_micros, line, &fields);
    // A line stays a line.
    std::string message;
    AppendJson(line.message, &message);
    return absl::StrCat(Timestamp(unix_micros), "\t", std::string(level), "\t", std::string(caller),
                        "\t", message.substr(1, message.size() - 2),
                        fields.size() == 1 ? "" : absl::StrCat("\t", fields, "}"));
  }
  out = "{";
  AppendField("level", level, &out);
  AppendField("ts", Timestamp(unix_micros), &out);
  AppendField("caller", caller, &out);
  AppendField("msg", line.message, &out);
  AppendFields(unix_micros, line, &out);
  out.push_back('}');
  return out;
}

void Log::Write(std::string_view caller, const node::LogLine& line) {
  const auto level = LevelOf(line.severity);
  if (!sinks_->logger.should_log(level)) return;
  const int64_t now = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  const std::string text = FormatLine(format_, NameOf(line.severity), now, caller, line);
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
