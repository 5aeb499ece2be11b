// The TLS policies of a server, from its settings.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/log.h"
#include "conclave/server/tls/policy.h"

namespace conclave::app {

struct TlsPolicies {
  std::unique_ptr<tls::Policy> client;  // null: no certificate, no TLS
  std::unique_ptr<tls::Policy> peer;
};

// Makes the certificates of --auto-tls and --peer-auto-tls, in the data directory.
//   as tls::Policy::Create and tls::KeepSelfSigned
absl::StatusOr<TlsPolicies> SetUpTls(const Config& config, std::shared_ptr<Log> log);

}  // namespace conclave::app
