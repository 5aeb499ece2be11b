// Discovery: who is there? A live view of the instances of a service.
//
//   conclave::Discovery discovery(client);
//   absl::StatusOr<conclave::Service> service = discovery.Watch("my-service");
//   for (const conclave::Instance& instance : service->snapshot()->instances()) ...
//   conclave::Subscription subscription = service->Subscribe(
//       [](const conclave::Snapshot& now, const conclave::Delta& delta) { ... });
//
// A service's instances are the keys "<service>/..." whose values are naming JSON
// (registry/instance.h), whoever wrote them: our registry, Go's endpoints manager, `etcdctl put`.
// The view is listed once and then follows the watch; it survives reconnects, restarts and
// compaction (the state is listed again and the difference reported), and it is never emptied by an
// error: while the cluster is out of reach, the last known set stays, marked by stale_since().
//
// A value that is no naming JSON is left out, counted in skipped(), and logged once; the others
// stay.
//
// Threads: everything here is thread-safe. snapshot() takes no lock. Subscribers are called one at
// a time on the client's callback thread; they may call this library and may destroy their own
// Subscription. After the destructor of a Subscription has returned, its callback does not run any
// more.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/registry/instance.h"

namespace conclave {

class DiscoveryImpl;
class WatchedService;

// The instances of a service at one revision. Immutable.
class Snapshot {
 public:
  const std::string& service() const { return service_; }
  // In the order of their keys; also those that are draining or down (Instance::state).
  const std::vector<Instance>& instances() const { return instances_; }
  // Of the store, as of which this is the truth. 0: nothing has been heard yet (then known() is
  // false).
  int64_t revision() const { return revision_; }
  bool known() const { return revision_ != 0; }
  // Entries under the service's prefix that could not be read, and are not among instances().
  int64_t skipped() const { return skipped_; }
  // Since when the cluster has been out of reach, so that this may be out of date; nullopt: it is
  // not.
  std::optional<absl::Time> stale_since() const { return stale_since_; }
  // How long ago the instances last changed.
  absl::Duration age() const { return absl::Now() - changed_at_; }

 private:
  friend class ServiceState;

  std::string service_;
  std::vector<std::string> keys_;  // of instances_, in the same order
  std::vector<Instance> instances_;
  int64_t revision_ = 0;
  int64_t skipped_ = 0;
  std::optional<absl::Time> stale_since_;
  absl::Time changed_at_ = absl::InfinitePast();
};

// What has changed between two snapshots. Empty if only stale_since() has.
struct Delta {
  std::vector<Instance> added{};
  std::vector<Instance> updated{};  // as they are now
  std::vector<Instance> removed{};  // as they were

  bool empty() const { return added.empty() && updated.empty() && removed.empty(); }
};

// First called with all there is, as soon as something is known; then with each change. Changes
// that come while an earlier call still runs are reported together.
using ServiceCallback = absl::AnyInvocable<void(const Snapshot& now, const Delta& delta)>;

class [[nodiscard]] Subscription {
 public:
  Subscription() = default;
  Subscription(Subscription&&) noexcept = default;
  Subscription& operator=(Subscription&& other) noexcept;
  ~Subscription();  // waits for a callback that runs, unless this is that callback

  void Cancel();  // as the destructor

 private:
  friend class WatchedService;
  struct Rep;
  Subscription(std::shared_ptr<WatchedService> service, std::shared_ptr<Rep> rep);
  std::shared_ptr<WatchedService> service_;
  std::shared_ptr<Rep> rep_;
};

// A handle; copies share the watch, which ends with the last of them and of the subscriptions.
class Service {
 public:
  const std::string& name() const;
  // Never null. Cheap enough to be asked for every call that an application makes.
  std::shared_ptr<const Snapshot> snapshot() const;
  [[nodiscard]] Subscription Subscribe(ServiceCallback callback) const;
  // Waits until `condition` holds for a snapshot and returns that one; DeadlineExceeded or
  // Cancelled else. Not from the callback thread. Without a timeout in `call` it waits without end.
  absl::StatusOr<std::shared_ptr<const Snapshot>> Wait(
      absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call = {}) const;

 private:
  friend class Discovery;
  friend class DiscoveryImpl;
  explicit Service(std::shared_ptr<WatchedService> watched) : watched_(std::move(watched)) {}
  std::shared_ptr<WatchedService> watched_;
};

struct DiscoveryOptions {
  // List by a linearizable read, not from any member's own state. The view begins with the newest
  // state then, but cannot begin while there is no quorum.
  bool linearizable = false;
  // How often host names in addresses are resolved again (for channels, which need IP addresses).
  absl::Duration resolve_interval = absl::Seconds(30);
};

// A handle; copies share the watches. Holds a client handle.
class Discovery {
 public:
  explicit Discovery(Client client, DiscoveryOptions options = {});

  // Returns at once. All handles of one name share one watch. `service` is "my-service" or
  // "etcd:///my-service"; InvalidArgument for what cannot be a service's name.
  [[nodiscard]] absl::StatusOr<Service> Watch(std::string_view service) const;

  // For the channel.
  const std::shared_ptr<DiscoveryImpl>& impl() const { return impl_; }

 private:
  std::shared_ptr<DiscoveryImpl> impl_;
};

// The name in "my-service" or "etcd:///my-service".
[[nodiscard]] absl::StatusOr<std::string> ParseServiceTarget(std::string_view target);

}  // namespace conclave
