// GrpcHealth: a registration's health, taken from the grpc.health.v1 of the very server that it is
// for.
//
//   grpc::EnableDefaultHealthCheckService(true);                      // before the server is built
//   registry.Register(instance, {.health = GrpcHealth(*server)});
//
// The server is watched (Health/Watch), or asked at intervals (Health/Check) where it does not know
// Watch. NOT_SERVING, a service that it does not know, and a server that cannot be reached are
// down; a server without any health service counts as healthy, as it does for gRPC's own clients.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "conclave/registry/health.h"

namespace conclave {

struct GrpcHealthOptions {
  std::string service{};  // as the server names it; empty is the server as a whole
  absl::Duration poll_interval = absl::Seconds(5);  // of Check, and of looking for a server again
  absl::Duration timeout = absl::Seconds(1);        // of Check
  // See HealthCheck. What a server says of itself is believed at once; only coming up again takes
  // `hold` without a word to the contrary.
  int fall = 1;
  int rise = 1;
  absl::Duration hold = absl::Seconds(1);
};

HealthCheck GrpcHealth(std::shared_ptr<grpc::Channel> channel, GrpcHealthOptions options = {});
// Within the process, without the network. The registration must be withdrawn before the server is
// shut down, which would else wait for the watch to end; GracefulStop keeps to that order.
HealthCheck GrpcHealth(grpc::Server& server, GrpcHealthOptions options = {});
// "host:port", without TLS.
HealthCheck GrpcHealth(const std::string& address, GrpcHealthOptions options = {});

}  // namespace conclave
