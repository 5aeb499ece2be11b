// Leaving without a failed call, for a grpc::Server: the order of graceful_stop.h with the server's
// own health service and shutdown in their places.
//
//   conclave::RunUntilSignal(*server, {&registration}, {.notice = absl::Seconds(2)});
#pragma once

#include <grpcpp/server.h>

#include <stop_token>
#include <vector>

#include "conclave/registry/graceful_stop.h"

namespace conclave {

// What `options` names besides the times is done as well, just before the server's part.
void GracefulStop(grpc::Server& server, const std::vector<Registration*>& registrations,
                  GracefulStopOptions options = {});

// Waits for SIGTERM, SIGINT or a requested stop, then GracefulStop. Gives the signal, or 0.
int RunUntilSignal(grpc::Server& server, const std::vector<Registration*>& registrations,
                   GracefulStopOptions options = {}, std::stop_token stop = {});

}  // namespace conclave
