// What users and members write for an endpoint, made into the name that the engine knows it by.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace conclave {

// Whether the text itself asks for TLS: https://, unixs://.
bool WantsTls(std::string_view text);

// "host:port" of "host:port" or "http://host:port", with an optional "/" at the end, IPv6 in
// brackets; "unix:/path" of "unix:///path". A client that `uses_tls` has https:// and unixs://
// instead. The error says what is wrong with it.
absl::StatusOr<std::string> ParseEndpoint(std::string_view text, bool uses_tls = false);

}  // namespace conclave
