// EndpointSync: keeps an engine's endpoints equal to the addresses at which the cluster's members
// say they are reached.
//
// What the user gave (or the DNS answered) is where it begins, and stays as a fallback: the engine
// turns to it while none of the members' own addresses answers, because those may not be reachable
// from here. Members without addresses (not started yet), learners, and addresses that mean nothing
// here (without TLS for a client that uses it, with TLS for one that does not, unix, 0.0.0.0) are
// left out; if nothing remains, nothing changes. Thread: the
// engine's. Limit: kEndpointsMax endpoints in all.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave {

class EndpointSync {
 public:
  static constexpr size_t kEndpointsMax = 64;
  using OnChange = absl::AnyInvocable<void(const std::vector<EndpointPool::Endpoint>&)>;

  // `given`: what the engine began with. interval 0: only when asked. The engine must end first.
  // `uses_tls`: of the members' addresses, those with TLS are the ones to use.
  EndpointSync(Engine& engine, std::vector<std::string> given, Duration interval, bool uses_tls,
               OnChange on_change);

  // Asks the cluster now.
  CallId Sync(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);
  // The DNS has another answer. Not empty.
  void SetGiven(std::vector<std::string> given);

  // The client addresses of those who can be asked for anything.
  static std::vector<std::string> AddressesOf(const std::vector<Member>& members,
                                              bool uses_tls = false);

 private:
  void Arm();
  void Apply();

  Engine& engine_;
  const Duration interval_;
  const bool uses_tls_;
  OnChange on_change_;
  std::vector<std::string> given_;
  std::vector<std::string> members_;  // as of the last answer; none: not asked yet
  std::vector<EndpointPool::Endpoint> applied_;
};

}  // namespace conclave
