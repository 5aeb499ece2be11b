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
  constexpr int64_t kFilesMax = 1'000'000;
  constexpr int64_t kDaysMax = 100'000;
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
  const int64_t days = number("maxage");
  if (megabytes < 0 || megabytes > kMegabytesMax || files < 0 || files > kFilesMax || days < 0 ||
      days > kDaysMax) {
    return InvalidValue(absl::StrCat("maxsize must be from 0 to ", kMegabytesMax,
                                     ", maxbackups from 0 to ", kFilesMax, ", maxage from 0 to ",
                                     kDaysMax));
  }
  LogRotation& settings = config->log_rotation_settings;
  for (const auto& [name, field] : {std::pair("localtime", &LogRotation::local_time),
                                    std::pair("compress", &LogRotation::compress)}) {
    const auto found = json.find(name);
    if (found != json.end() && !found->is_boolean()) {
      return InvalidValue(absl::StrCat(name, " must be true or false"));
    }
    settings.*field = found != json.end() && found->get<bool>();
  }
  settings.file_bytes_max = static_cast<uint64_t>(megabytes == 0 ? 100 : megabytes) << 20;
  settings.files = static_cast<uint64_t>(files);
  settings.age_max = std::chrono::hours(24 * days);
  return absl::OkStatus();
}

absl::Status SetLogOutputs(std::string_view value, Config* config) {
  config->log.outputs.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string output(part);
    if (output.empty() || (output.starts_with("systemd/") && output != "systemd/journal")) {
      return InvalidValue("must be stderr, stdout, systemd/journal or paths of files");
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
    Works("log-outputs", kList, "default",
          "stderr, stdout, systemd/journal or paths of files, separated by commas", SetLogOutputs),
    Works("enable-log-rotation", kBool, "false", "files of --log-outputs are rotated",
          SetBool<&Config::log_rotation>),
    Works(
        "log-rotation-config-json", kText,
        R"({"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false})",
        "megabytes at which a file is rotated; days and number that old ones stay (0: for ever, "
        "all); whether their names have local time, and whether they are packed by gzip",
        SetLogRotation),
    Works("metrics", kText, "basic", "basic, or extensive: with histograms of calls", SetMetrics),
    Works("warning-unary-request-duration", kDuration, "300ms", "log requests that take longer",
          SetDuration<&Config::warning_unary_request_duration, 1>)
        .OnceExperimental(),
    Works("warning-apply-duration", kDuration, "100ms",
          "log turns of the core, which apply requests, that take longer",
          SetDuration<&Config::warning_apply_duration, 1>)
        .OnceExperimental(),
    Works("warning-watch-progress-duration", kDuration, "100ms",
          "the name by which etcd's help calls --warning-apply-duration: the same",
          SetDuration<&Config::warning_apply_duration, 1>)
        .OnceExperimental(),
    Ignored("debug", kBool, "say --log-level=debug"),
    Ignored("log-package-levels", kText, "one level is for all: --log-level"),
    Works(
        "enable-pprof", kBool, "false",
        "serve /debug/pprof/: the command line, and how to make a profile with perf; also on with "
        "--log-level=debug",
        SetBool<&Config::enable_pprof>),
};

}  // namespace

FlagGroup LoggingFlags() { return {"Logging and metrics", kFlags}; }

}  // namespace conclave::app
