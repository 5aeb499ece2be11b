// What the ports of --listen-xds-urls demand of their clients: the client port's certificates, and
// of a client with a certificate, as whom it reads.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "conclave/server/app/core.h"
#include "conclave/server/tls/policy.h"

namespace grpc {
class ServerCredentials;
}

namespace conclave::app {

// TLS as gRPC's own server speaks it, with the files of `policy`, which are read anew when they
// change. Chains are judged by gRPC and by the policy: names and revocation too. `policy` outlives
// what is made of it.
//   InvalidArgument  the policy believes the machine's own list of authorities, which gRPC does not
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> XdsCredentials(
    tls::Policy* policy);

// Whether `user` (a common name; "" without a certificate) may read the keys of a service, as far
// as this member knows. Everybody may while authentication is off. Answers on any thread, once;
// nullopt: it cannot be said now. `core` outlives the question.
void AskMaySee(Core* core, const std::string& user, const std::string& service,
               std::function<void(std::optional<bool>)> answer);

}  // namespace conclave::app
