#include "conclave/server/app/flags.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/server/app/flags/config_file.h"
#include "conclave/server/app/flags/feature_gates.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

constexpr std::string_view kConfigFile = "config-file";

bool IsConfigFile(const FlagEntry& flag) { return kConfigFile == flag.name; }

absl::Status UnknownFlag(std::string_view name) {
  std::string message = absl::StrCat("unknown flag --", std::string(name));
  if (const FlagEntry* nearest = NearestFlag(name); nearest != nullptr) {
    absl::StrAppend(&message, "; did you mean --", nearest->name, "?");
  }
  absl::StrAppend(&message, " (`conclave --help` lists all flags)");
  return absl::InvalidArgumentError(message);
}

absl::Status ParseEnvironment(const std::map<std::string, std::string>& environment,
                              CommandLine* line) {
  for (const auto& [variable, value] : environment) {
    if (!variable.starts_with("ETCD_")) continue;
    const FlagEntry* flag = FindVariable(variable);
    if (flag == nullptr) {
      line->warnings.push_back(absl::StrCat("unrecognized environment variable ", variable));
      continue;
    }
    if (value.empty()) continue;
    CONCLAVE_RETURN_IF_ERROR(ApplyFlag(*flag, variable, value, &line->config, &line->warnings));
  }
  return absl::OkStatus();
}

absl::Status CheckCompaction(Config* config) {
  if (config->auto_compaction_mode == CompactionMode::kOff &&
      config->auto_compaction_period > Duration::zero()) {
    config->auto_compaction_mode = CompactionMode::kPeriodic;  // the default mode
  }
  if (config->auto_compaction_mode == CompactionMode::kRevision) {
    if (config->auto_compaction_revisions < 0) {
      return InvalidValue(
          "--auto-compaction-retention must be a number of revisions when "
          "--auto-compaction-mode is revision");
    }
    if (config->auto_compaction_revisions == 0) config->auto_compaction_mode = CompactionMode::kOff;
  }
  if (config->auto_compaction_mode == CompactionMode::kPeriodic &&
      config->auto_compaction_period == Duration::zero()) {
    config->auto_compaction_mode = CompactionMode::kOff;
  }
  return absl::OkStatus();
}

// One argument as given, or two when the value stands by itself.
struct Given {
  const FlagEntry* flag = nullptr;
  std::string value;
};

absl::StatusOr<std::vector<Given>> SplitArguments(std::span<const std::string> arguments,
                                                  CommandLine* line) {
  std::vector<Given> given;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    if (argument == "--" && i + 1 == arguments.size()) break;
    if (argument.size() < 2 || argument[0] != '-') {
      return InvalidValue(absl::StrCat("\"", std::string(argument),
                                       "\" is not a flag; conclave takes flags only, for example "
                                       "--data-dir=/var/lib/conclave"));
    }
    argument.remove_prefix(argument.starts_with("--") ? 2 : 1);
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    const bool is_help = name == "help" || name == "h";
    if (is_help || name == "version") {
      const auto on = equals == std::string_view::npos ? absl::StatusOr<bool>(true)
                                                       : ParseBool(argument.substr(equals + 1));
      if (!on.ok()) return on.status();
      (is_help ? line->help : line->version) = *on;
      continue;
    }
    const FlagEntry* flag = FindFlag(name);
    if (flag == nullptr) return UnknownFlag(name);
    if (equals != std::string_view::npos) {
      given.push_back({flag, std::string(argument.substr(equals + 1))});
    } else if (flag->is_bool()) {
      given.push_back({flag, "true"});
    } else if (i + 1 < arguments.size()) {
      given.push_back({flag, arguments[++i]});
    } else {
      return InvalidValue(absl::StrCat("--", flag->name, " needs a value: --", flag->name, "=..."));
    }
  }
  return given;
}

// The variables and, over them, the flags.
absl::Status ApplyGiven(const std::vector<Given>& given,
                        std::map<std::string, std::string> environment, CommandLine* line) {
  for (const Given& one : given) {
    const std::string variable = VariableOf(one.flag->name);
    if (environment.erase(variable) > 0) {
      line->warnings.push_back(
          absl::StrCat(variable, " is shadowed by the flag --", one.flag->name));
    }
  }
  CONCLAVE_RETURN_IF_ERROR(ParseEnvironment(environment, line));
  for (const Given& one : given) {
    CONCLAVE_RETURN_IF_ERROR(ApplyFlag(*one.flag, absl::StrCat("--", one.flag->name), one.value,
                                       &line->config, &line->warnings));
  }
  return absl::OkStatus();
}

// Empty if there is none.
std::string ConfigFileOf(const std::vector<Given>& given,
                         const std::map<std::string, std::string>& environment) {
  for (auto one = given.rbegin(); one != given.rend(); ++one) {
    if (IsConfigFile(*one->flag)) return one->value;
  }
  const auto variable = environment.find(VariableOf(kConfigFile));
  return variable == environment.end() ? "" : variable->second;
}

// The file, and nothing but the file: who reads it sees all that is set.
absl::Status ApplyFile(const std::string& path, const std::vector<Given>& given,
                       const std::map<std::string, std::string>& environment, CommandLine* line) {
  constexpr char kDecides[] = " is ignored: the config file decides";
  for (const Given& one : given) {
    if (!IsConfigFile(*one.flag)) {
      line->warnings.push_back(absl::StrCat("--", one.flag->name, kDecides));
    }
  }
  for (const auto& [variable, value] : environment) {
    const FlagEntry* flag = FindVariable(variable);
    if (flag != nullptr && !value.empty() && !IsConfigFile(*flag)) {
      line->warnings.push_back(absl::StrCat(variable, kDecides));
    }
  }
  CONCLAVE_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
  line->config.config_file = path;
  return ApplyConfigText(text, path, &line->config, &line->warnings);
}

absl::Status Parse(std::span<const std::string> arguments,
                   const std::map<std::string, std::string>& environment, CommandLine* line) {
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<Given> given, SplitArguments(arguments, line));
  if (line->help) return absl::OkStatus();
  // Even where something else decides, the flags have to be right.
  CommandLine flags_alone;
  CONCLAVE_RETURN_IF_ERROR(ApplyGiven(given, {}, &flags_alone));
  if (line->version) return absl::OkStatus();
  const std::string path = ConfigFileOf(given, environment);
  CONCLAVE_RETURN_IF_ERROR(path.empty() ? ApplyGiven(given, environment, line)
                                        : ApplyFile(path, given, environment, line));
  CONCLAVE_RETURN_IF_ERROR(CheckCompaction(&line->config));
  ApplyFeatureGates(&line->config, &line->warnings);
  if (line->config.log.level == "debug") line->config.enable_pprof = true;
  if (line->config.log_rotation) line->config.log.rotation = line->config.log_rotation_settings;
  return Complete(&line->config);
}

// Messages repeat what was given, and stay one line.
absl::Status OneLine(const absl::Status& status) {
  std::string message(status.message());
  for (char& c : message) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return absl::Status(status.code(), message);
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(
    std::span<const std::string> arguments, const std::map<std::string, std::string>& environment) {
  CommandLine line;
  const absl::Status status = Parse(arguments, environment, &line);
  if (!status.ok()) return OneLine(status);
  return line;
}

}  // namespace conclave::app
