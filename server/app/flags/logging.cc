// --help's group "Logging and metrics".
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetLogLevel(std::string_view value, Config* config) {
  for (const char* level : {"debug", "info", "warn", "error", "panic", "fatal"}) {
    if (value == level) {
      config->log_level = std::string(value);
      return absl::OkStatus();
    }
  }
  return InvalidValue("must be debug, info, warn, error, panic or fatal");
}

absl::Status SetLogger(std::string_view value, Config* /*config*/) {
  if (value != "zap") return InvalidValue("must be zap, the JSON lines that etcd writes");
  return absl::OkStatus();
}

absl::Status SetLogFormat(std::string_view value, Config* /*config*/) {
  if (value != "json") return InvalidValue("must be json; other formats are not there yet");
  return absl::OkStatus();
}

absl::Status SetLogOutputs(std::string_view value, Config* config) {
  config->log_outputs.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string output(part);
    if (output.empty()) return InvalidValue("must be stderr, stdout or paths of files");
    if (output.starts_with("systemd/")) {
      return InvalidValue("the journal is not there yet; use stderr");
    }
    config->log_outputs.push_back(output);
  }
  return absl::OkStatus();
}

absl::Status SetMetrics(std::string_view value, Config* config) {
  if (value != "basic" && value != "extensive") return InvalidValue("must be basic or extensive");
  config->extensive_metrics = value == "extensive";
  return absl::OkStatus();
}

const FlagEntry kFlags[] = {
    Works("log-level", kText, "info", "debug, info, warn, error, panic or fatal", SetLogLevel),
    Works("logger", kText, "zap", "only zap: JSON lines", SetLogger),
    Works("log-format", kText, "json", "only json", SetLogFormat),
    Works("log-outputs", kList, "default", "stderr, stdout or paths of files, separated by commas",
          SetLogOutputs),
    Works("metrics", kText, "basic", "basic, or extensive: with histograms of calls", SetMetrics),
    Works("warning-unary-request-duration", kDuration, "300ms", "log requests that take longer",
          SetDuration<&Config::warning_unary_request_duration, 1>)
        .OnceExperimental(),
    Ignored("warning-apply-duration", kDuration, "applying has no warning of its own")
        .OnceExperimental(),
    Ignored("warning-watch-progress-duration", kDuration,
            "watch progress has no warning of its own")
        .OnceExperimental(),
    Ignored("enable-pprof", kBool, "there is no Go profiler here; use perf"),
};

}  // namespace

FlagGroup LoggingFlags() { return {"Logging and metrics", kFlags}; }

}  // namespace conclave::app
