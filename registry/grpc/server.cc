#include "conclave/registry/grpc/server.h"

#include <grpcpp/health_check_service_interface.h>

#include <utility>

#include "absl/time/clock.h"

namespace conclave {
namespace {

GracefulStopOptions WithServer(grpc::Server& server, GracefulStopOptions options) {
  options.not_serving = [&server, before = std::move(options.not_serving)] {
    if (before) before();
    if (grpc::HealthCheckServiceInterface* health = server.GetHealthCheckService()) {
      health->SetServingStatus(false);
    }
  };
  options.shutdown = [&server, before = std::move(options.shutdown)](absl::Duration grace) {
    if (before) before(grace);
    server.Shutdown(absl::ToChronoTime(absl::Now() + grace));
  };
  return options;
}

}  // namespace

void GracefulStop(grpc::Server& server, const std::vector<Registration*>& registrations,
                  GracefulStopOptions options) {
  GracefulStop(registrations, WithServer(server, std::move(options)));
}

int RunUntilSignal(grpc::Server& server, const std::vector<Registration*>& registrations,
                   GracefulStopOptions options, std::stop_token stop) {
  return RunUntilSignal(registrations, WithServer(server, std::move(options)), std::move(stop));
}

}  // namespace conclave
