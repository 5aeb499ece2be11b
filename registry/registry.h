// Registry: makes a running service instance known, for as long as it runs.
//
//   conclave::Registry registry(client);
//   absl::StatusOr<conclave::Registration> registration =
//       registry.Register({.service = "my-service", .address = "10.1.2.3:8080"});
//   if (!registration.ok()) return registration.status();   // a bad name or address, never an
//   outage
//
// The instance stands in the store as key "<service>/<address>" on a lease, in etcd's naming
// format, so that Go's resolvers, etcdctl and Conclave's discovery see it (registry/instance.h), or
// in the format of another project (registry/codec.h). It goes with the process at the latest when
// the lease ends.
//
// Registering is a desired state: the key comes back by itself after an outage of any length, a
// lost lease, or a hand that deleted it, with what Update said last. An operator can overrule an
// instance from outside, for as long as he likes (registry/override.h).
//
// All registrations of a Registry share one lease for each TTL, so a thousand of them cost one
// renewal; deregistering one deletes its key only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/registry/codec.h"
#include "conclave/registry/health.h"
#include "conclave/registry/instance.h"
#include "conclave/registry/override.h"
#include "conclave/registry/registration_state.h"

namespace conclave {

class RegistryImpl;

struct RegistrationOptions {
  absl::Duration ttl = absl::Seconds(10);  // whole seconds, rounded up; from 1 s to 1 day
  Format format = Format::kEtcdNaming;
  // A lease of its own: it then neither comes nor goes with the other registrations.
  bool isolated_lease = false;
  // On the caller's session, whose TTL counts: the registration is lost for good with the session.
  const Session* session = nullptr;
  // Says whether the instance may get calls; until its first good answer it may not.
  std::optional<HealthCheck> health{};
  // On the callback thread. `why` tells what is wrong, or is OK. An instance that stands there as
  // wanted but is held back (by its health, by an operator) is kRegistered with a reason.
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
  absl::Status status() const;  // the reason of the state
  absl::Time since() const;     // when it became that
  Instance instance() const;    // as its owner wants it now
  // OK once it stands there as wanted; DeadlineExceeded with the last reason if it does not by
  // then.
  absl::Status WaitRegistered(absl::Duration timeout) const;

  // Changes what is stored, now and after any later repair. Service, id and address stay as they
  // are. InvalidArgument if the result cannot be stored; then nothing changes.
  absl::Status Update(const std::function<void(Instance&)>& change);
  // It goes on, but wants no new calls; and back.
  void Drain();
  void Undrain();

  // Deletes the key and stops repairing it; the lease goes on. Readers see the instance leave.
  absl::Status Withdraw(const CallOptions& call = {});
  // Withdraw, and leaves the lease, which ends with the last registration on it. What cannot be
  // deleted now is deleted later, or goes with the lease.
  absl::Status Deregister(const CallOptions& call = {});

 private:
  friend class Registry;
  struct Rep;
  explicit Registration(std::shared_ptr<Rep> rep);
  std::shared_ptr<Rep> rep_;
};

struct RegistryOptions {
  // Where operators' overrides stand. Empty: they are not heeded, and no right to read them is
  // needed.
  std::string override_prefix = std::string(kOverridePrefix);
};

struct OverrideEntry {
  std::string service{};
  std::string name{};               // an id or an address
  std::string text{};               // as stored
  std::optional<Override> value{};  // absent: the text is no override, and is ignored
};

// A handle: copies are the same registry. Thread-safe. Registrations may outlive it.
class Registry {
 public:
  explicit Registry(const Client& client, RegistryOptions options = {});

  // Returns at once; errors are of the arguments only: InvalidArgument, or AlreadyExists if this
  // registry has that key already. An address ":8080" gets the host that this machine uses towards
  // the cluster.
  absl::StatusOr<Registration> Register(Instance instance, RegistrationOptions options = {});

  // For operators. `name` is the id or the address of an instance, which need not be there (yet).
  absl::Status SetOverride(std::string_view service, std::string_view name, const Override& value,
                           const CallOptions& call = {}) const;
  // OK also if there is none.
  absl::Status ClearOverride(std::string_view service, std::string_view name,
                             const CallOptions& call = {}) const;
  // Of one service, or of all.
  absl::StatusOr<std::vector<OverrideEntry>> ListOverrides(std::string_view service = {},
                                                           const CallOptions& call = {}) const;

 private:
  std::shared_ptr<RegistryImpl> impl_;
};

}  // namespace conclave
