// What users call protocol versions and cipher suites: Go's names, as etcd's flags have them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave::tls {

enum class Version : uint8_t { kAny, kTls12, kTls13 };

// "TLS1.2", "TLS1.3", or "" for kAny. InvalidArgument in etcd's words.
absl::StatusOr<Version> ParseVersion(std::string_view text);

// Which of OpenSSL's suites the names mean. TLS 1.2 and 1.3 are chosen separately there; an empty
// list leaves the choice to DefaultSuites.
struct Suites {
  std::string tls12;  // in the syntax of SSL_CTX_set_cipher_list
  std::string tls13;  // in that of SSL_CTX_set_ciphersuites
};
// Forward secrecy and authenticated encryption; all that HTTP/2 allows.
Suites DefaultSuites();
// InvalidArgument for a name that is unknown, or whose suite this OpenSSL no longer has.
absl::StatusOr<Suites> ParseSuites(const std::vector<std::string>& names);

}  // namespace conclave::tls
