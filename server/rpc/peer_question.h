// A question at another member's peer port: who belongs to your cluster? For a server that has no
// node yet: to join a cluster, or to see whether one is there already.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/tls/policy.h"

namespace conclave::rpc {

// The directory (node/directory.h) of the first of these peer URLs that answers. Blocks, for
// `timeout` per URL at most. `tls_policy` for URLs that want TLS; may be null.
//   Unavailable  none has answered; says why the last one has not
[[nodiscard]] absl::StatusOr<std::string> AskForDirectory(const std::vector<std::string>& peer_urls,
                                                          tls::Policy* tls_policy,
                                                          Duration timeout);

}  // namespace conclave::rpc
