// The config file of --config-file: YAML, or JSON, which is YAML. Its keys are the flags' names;
// those of TLS stand in the sections client-transport-security and peer-transport-security.
//
// An integer where a duration is wanted counts nanoseconds, a list may stand for values separated
// by commas, and a key without a value is as good as none. A key that nobody knows is tolerated
// with a warning.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"

namespace conclave::app {

inline constexpr size_t kConfigFileBytesMax = 1 << 20;

// InvalidArgument, one line that names the path, if it cannot be read or is too large.
absl::StatusOr<std::string> ReadConfigFile(const std::string& path);

// `path` is for messages. InvalidArgument: one line that names the place and how to put it right.
absl::Status ApplyConfigText(std::string_view text, std::string_view path, Config* config,
                             std::vector<std::string>* warnings);

}  // namespace conclave::app
