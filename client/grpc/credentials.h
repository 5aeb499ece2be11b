// The credentials of a client's connections.
#pragma once

#include <grpcpp/security/credentials.h>

#include <memory>
#include <optional>

#include "conclave/client/core/tls_options.h"

namespace conclave {

// Of a TLS client: the files are watched by a thread of gRPC's that lives as long as the
// credentials do. Without options: plain text.
std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const std::optional<TlsOptions>& tls);

}  // namespace conclave
