// The command line and the environment of the server, in etcd's ways.
//
// Syntax of Go's flag package: -f or --f, --f=v or --f v, a boolean only as --f or --f=v, the last
// one wins. The environment variable of a flag is ETCD_ and its name in capitals with '-' as '_'; a
// flag beats it. The flags themselves stand in flags/, one file per group.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"

namespace conclave::app {

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

}  // namespace conclave::app
