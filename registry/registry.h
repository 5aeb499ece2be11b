// Registry: makes a running service instance known, for as long as it runs.
//
//   conclave::Registry registry(client);
//   absl::StatusOr<conclave::Registration> registration =
//       registry.Register({.service = "my-service", .address = "10.1.2.3:8080"});
//   if (!registration.ok()) return registration.status();   // a bad name or address, never an
//   outage
//
// The instance stands in the store as key "<service>/<address>" on a lease, in etcd's naming
// format, so that Go's resolvers, etcdctl and Conclave's discovery see it (registry/instance.h). It
// goes with the process at the latest when the lease ends.
//
// Registering is a desired state: the key comes back by itself after an outage of any length, a
// lost lease, or a hand that deleted it, with what Update said last.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/registry/instance.h"
#include "conclave/registry/registrar.h"

namespace conclave {

struct RegistrationOptions {
  absl::Duration ttl = absl::Seconds(10);  // whole seconds, rounded up; at least one
  // On the callback thread. `why` tells what is wrong, or is OK.
  absl::AnyInvocable<void(RegState state, const absl::Status& why)> on_state{};
};

// One registered instance. The destructor deregisters, waiting for a second at most.
class [[nodiscard]] Registration {
 public:
  Registration();  // of nothing
  Registration(Registration&&) noexcept;
  Registration& operator=(Registration&&) noexcept;
  ~Registration();

  RegState state() const;
  Instance instance() const;  // as wanted now
  // OK once it is registered; DeadlineExceeded with the last reason if it is not by then.
  absl::Status WaitRegistered(absl::Duration timeout) const;
  // Changes what is stored, now and after any later repair. Service and address stay as they are.
  void Update(const std::function<void(Instance&)>& change);
  // Deletes the key and stops repairing it; the lease goes on. Readers see the instance leave.
  absl::Status Withdraw(const CallOptions& call = {});
  // Withdraw, and ends the lease. What cannot be deleted now goes with the lease.
  absl::Status Deregister(const CallOptions& call = {});

 private:
  friend class Registry;
  struct Rep;
  explicit Registration(std::shared_ptr<Rep> rep);
  std::shared_ptr<Rep> rep_;
};

class Registry {
 public:
  explicit Registry(const Client& client) : client_(client) {}

  // Returns at once; errors are of the arguments only: InvalidArgument. An address ":8080" gets the
  // host that this machine uses towards the cluster.
  absl::StatusOr<Registration> Register(Instance instance, RegistrationOptions options = {});

 private:
  Client client_;
};

}  // namespace conclave
