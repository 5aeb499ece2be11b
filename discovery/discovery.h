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
// Or what another project writes (DiscoveryOptions::format). The view is listed once and then
// follows the watch; it survives reconnects, restarts and compaction (the state is listed again and
// the difference reported), and it is never emptied by an error: while the cluster is out of reach,
// the last known set stays, marked by stale_since().
//
// A value that cannot be read is left out, counted in skipped(), and logged once; the others stay.
//
// Threads: everything here is thread-safe. Subscribers are called one at
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
#include "conclave/discovery/filter.h"
#include "conclave/discovery/snapshot.h"
#include "conclave/registry/codec.h"
#include "conclave/registry/instance.h"

namespace conclave {

class DiscoveryImpl;
class ServiceView;

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
  friend class ServiceView;
  struct Rep;
  Subscription(std::shared_ptr<ServiceView> service, std::shared_ptr<Rep> rep);
  std::shared_ptr<ServiceView> service_;
  std::shared_ptr<Rep> rep_;
};

// A handle; copies share the watch, which ends with the last of them and of the subscriptions.
class Service {
 public:
  const std::string& name() const;
  // Never null. Takes a lock for as long as it takes to copy a pointer (about 20 ns when nobody
  // else does); who asks for every call on many threads had better have a SnapshotReader on each.
  std::shared_ptr<const Snapshot> snapshot() const;
  // When the server was last heard of on this service's watch; InfinitePast: never. While connected
  // a silent server is asked for a sign of life (ConnectOptions::watch_silence), so a set that is
  // not stale is never older than that and the time for an answer.
  absl::Time last_heard() const;
  [[nodiscard]] Subscription Subscribe(ServiceCallback callback) const;
  // Waits until `condition` holds for a snapshot and returns that one; DeadlineExceeded or
  // Cancelled else. Not from the callback thread. Without a timeout in `call` it waits without end.
  absl::StatusOr<std::shared_ptr<const Snapshot>> Wait(
      absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call = {}) const;

 private:
  friend class DiscoveryImpl;
  friend class SnapshotReader;
  explicit Service(std::shared_ptr<ServiceView> view) : view_(std::move(view)) {}
  std::shared_ptr<ServiceView> view_;
};

// The cheapest way to the latest snapshot, for code that asks with every call: one load of an
// atomic number while nothing changes. No lock, and no count that threads fight over. One per
// thread; it is not thread-safe itself.
class SnapshotReader {
 public:
  explicit SnapshotReader(const Service& service);
  // Valid until the next Read() or the reader's end.
  const Snapshot& Read();

 private:
  const std::shared_ptr<ServiceView> view_;
  uint64_t version_;
  std::shared_ptr<const Snapshot> snapshot_;
};

struct DiscoveryOptions {
  // How the programs that register write their instances, and where: see registry/codec.h.
  Format format = Format::kEtcdNaming;
  // List by a linearizable read, not from any member's own state. The view begins with the newest
  // state then, but cannot begin while there is no quorum.
  bool linearizable = false;
  // How often host names in addresses are resolved again (for channels, which need IP addresses).
  absl::Duration resolve_interval = absl::Seconds(30);
  // A list that has less than this part of the instances known before is suspected: what it lacks
  // stays in the set (Snapshot::suspect_since) for shrink_hold, or until a second list at half that
  // time lacks it too. Deletions that are seen to happen are honoured at once. 0 <= guard < 1; 0:
  // every list is believed.
  double shrink_guard = 0.5;
  absl::Duration shrink_hold = absl::Seconds(30);
  // Where the last good set of each service is kept for a process that starts while the cluster is
  // out of reach. A directory of this user's, made if it is not there. Empty: nowhere.
  std::string cache_dir{};
  // How long the cluster may stay silent after Watch() before the set on disk is shown.
  absl::Duration cache_after = absl::Seconds(1);
};

// A handle; copies share the watches. Holds a client handle.
class Discovery {
 public:
  explicit Discovery(Client client, DiscoveryOptions options = {});

  // Returns at once. All handles of one name share one watch. `service` is "my-service" or
  // "etcd:///my-service". InvalidArgument for what cannot be a service's name, for a filter that
  // contradicts itself, and for options of this Discovery that make no sense.
  [[nodiscard]] absl::StatusOr<Service> Watch(std::string_view service,
                                              const ServiceFilter& filter = {}) const;

  // For the channel.
  const std::shared_ptr<DiscoveryImpl>& impl() const { return impl_; }

 private:
  std::shared_ptr<DiscoveryImpl> impl_;
};

// The name in "my-service" or "etcd:///my-service".
[[nodiscard]] absl::StatusOr<std::string> ParseServiceTarget(std::string_view target);

}  // namespace conclave
