// gRPC's own log lines, into ours.
#pragma once

#include <functional>

#include "conclave/server/node/io.h"

namespace conclave::rpc {

// For the whole process; call it once, before gRPC is used. What gRPC calls an error is mostly a connection that broke, so
// everything comes as debug.
void RouteGrpcLog(std::function<void(const node::LogLine&)> log);

}  // namespace conclave::rpc
