// The command line and the environment of the server, in etcd's ways.
//
// Syntax of Go's flag package: -f or --f, --f=v or --f v, a boolean only as --f or --f=v, the last
// one wins. The environment variable of a flag is ETCD_ and its name in capitals with '-' as '_'; a
// flag beats it. Every flag of etcd has one of three fates here: it works; it is accepted and
// logged as ignored, because it tunes what does not exist here; or it is refused, because the
// server would not do what it asks for. Nothing is ignored in silence.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"

namespace conclave::app {

enum class FlagFate : uint8_t { kWorks, kIgnored, kRefused };

struct FlagEntry {
  const char* name;
  const char* group;
  FlagFate fate;
  const char* default_text;
  const char* help;
  bool is_bool = false;
  // Sets the value; of a flag that works. The status says what is wrong with the value and what
  // would be right.
  absl::Status (*set)(std::string_view value, Config* config) = nullptr;
};

std::span<const FlagEntry> AllFlags();

struct CommandLine {
  bool help = false;
  bool version = false;
  Config config;
  // To be logged at the start: flags that are ignored, variables that are unknown or shadowed.
  std::vector<std::string> warnings;
};

// `environment` holds the process's variables. InvalidArgument: one line that names the flag (or
// variable) and how to put it right.
absl::StatusOr<CommandLine> ParseCommandLine(std::span<const std::string> arguments,
                                             const std::map<std::string, std::string>& environment);

std::string HelpText();

}  // namespace conclave::app
