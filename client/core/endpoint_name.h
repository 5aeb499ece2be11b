// What users and members write for an endpoint, made into "host:port".
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace conclave {

// "host:port" or "http://host:port", with an optional "/" at the end; IPv6 in brackets. The error
// says what is wrong with it.
absl::StatusOr<std::string> ParseEndpoint(std::string_view text);

}  // namespace conclave
