// --help's group "Logging and metrics".
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetLogLevel(std::string_view value, Config* config) {
  for (const char* level : {"debug", "info", "warn", "error", "panic", "fatal"}) {
    if (value == level) {
      config->log.level = std::string(value);
      return absl::OkStatus();
    }
  }
  return InvalidValue("must be debug, info, warn, error, panic or fatal");
}

absl::Status SetLogger(std::string_view value, Config* /*config*/) {
  if (value != "zap") return InvalidValue("must be zap, the JSON lines that etcd writes");
  return absl::OkStatus();
}

absl::Status SetLogFormat(std::string_view value, Config* config) {
  if (value != "json" && value != "console") return InvalidValue("must be json or console");
  config->log.format = value == "json" ? LogFormat::kJson : LogFormat::kConsole;
  return absl::OkStatus();
}

absl::Status SetLogRotation(std::string_view value, Config* config) {
  constexpr int64_t kMegabytesMax = 1 << 20;
  constexpr int64_t kFilesMax = 1000;
  const auto json = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return InvalidValue("must be an object of JSON, as in {\"maxsize\": 100, \"maxbackups\": 5}");
  }
  const auto number = [&json](const char* name) -> int64_t {
    const auto found = json.find(name);
    if (found == json.end()) return 0;
    return found->is_number_integer() ? found->get<int64_t>() : -1;
  };
  const int64_t megabytes = number("maxsize");
  const int64_t files = number("maxbackups");
  if (megabytes < 0 || megabytes > kMegabytesMax || files < 0 || files > kFilesMax) {
    return InvalidValue(absl::StrCat("maxsize must be from 0 to ", kMegabytesMax,
                                     ", maxbackups from 0 to ", kFilesMax));
  }
  if (number("maxage") != 0 || json.value("compress", nlohmann::json()) == true) {
    return InvalidValue("maxage and compress do nothing here; leave them out");
  }
  // 0 is "by default" and "all of them".
  config->log_rotation_settings.file_bytes_max =
      static_cast<uint64_t>(megabytes == 0 ? 100 : megabytes) << 20;
  config->log_rotation_settings.files = static_cast<uint64_t>(files == 0 ? kFilesMax : files);
  return absl::OkStatus();
}

absl::Status SetLogOutputs(std::string_view value, Config* config) {
  config->log.outputs.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string output(part);
    if (output.empty()) return InvalidValue("must be stderr, stdout or paths of files");
    if (output.starts_with("systemd/")) {
      return InvalidValue("the journal is not there yet; use stderr");
    }
    config->log.outputs.push_back(output);
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
    Works("log-format", kText, "json", "json or console", SetLogFormat),
    Works("log-outputs", kList, "default", "stderr, stdout or paths of files, separated by commas",
          SetLogOutputs),
    Works("enable-log-rotation", kBool, "false", "files of --log-outputs are rotated",
          SetBool<&Config::log_rotation>),
    Works("log-rotation-config-json", kText, R"({"maxsize": 100, "maxbackups": 0})",
          "megabytes at which a file is rotated, and how many old ones stay (0: all)",
          SetLogRotation),
    Works("metrics", kText, "basic", "basic, or extensive: with histograms of calls", SetMetrics),
    Works("warning-unary-request-duration", kDuration, "300ms", "log requests that take longer",
          SetDuration<&Config::warning_unary_request_duration, 1>)
        .OnceExperimental(),
    Works("warning-apply-duration", kDuration, "100ms",
          "log turns of the core, which apply requests, that take longer",
          SetDuration<&Config::warning_apply_duration, 1>)
        .OnceExperimental(),
    Ignored("warning-watch-progress-duration", kDuration,
            "watch progress has no warning of its own")
        .OnceExperimental(),
    Ignored("debug", kBool, "say --log-level=debug"),
    Ignored("log-package-levels", kText, "one level is for all: --log-level"),
    Ignored("enable-pprof", kBool, "there is no Go profiler here; use perf"),
};

}  // namespace

FlagGroup LoggingFlags() { return {"Logging and metrics", kFlags}; }

}  // namespace conclave::app
