// Leaving without a failed call: the order in which a server that is registered stops.
//
//   1. not_serving(): health checks answer NOT_SERVING
//   2. the registrations say "draining": new readers send no new calls
//   3. wait `notice`
//   4. the keys are deleted: readers that know nothing of draining see the instance leave
//   5. wait `settle`
//   6. shutdown(grace): the server finishes the calls that it has
//   7. the leases are revoked
//
//   conclave::RunUntilSignal({&registration}, {.shutdown = [&](absl::Duration grace) {
//     server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
//   }});
#pragma once

#include <functional>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/registry/registry.h"

namespace conclave {

struct GracefulStopOptions {
  absl::Duration notice = absl::Seconds(2);
  absl::Duration settle = absl::Seconds(1);
  absl::Duration grace = absl::Seconds(30);
  std::function<void()> not_serving{};  // may be empty
  std::function<void(absl::Duration grace)>
      shutdown{};  // may be empty; returns when the server is down
};

// Steps 1 to 7, at once. Failures to reach the store do not stop the stopping: keys then go with
// their leases.
void GracefulStop(const std::vector<Registration*>& registrations,
                  const GracefulStopOptions& options);

// Waits for SIGTERM, SIGINT or a requested stop, then GracefulStop. A second signal ends the
// process in the usual way. Gives the signal, or 0 for the stop. One at a time in a process.
int RunUntilSignal(const std::vector<Registration*>& registrations,
                   const GracefulStopOptions& options, std::stop_token stop = {});

}  // namespace conclave
