#include "conclave/discovery/picking/core.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "conclave/discovery/xds/endpoint_set.h"

namespace conclave::picking {
namespace {

// The address as gRPC's resolvers take it; it has been found usable by the roster.
std::string TargetOf(const std::string& address) {
  const absl::StatusOr<xds::HostPort> parts = xds::ParseHostPort(address);
  if (!parts.ok() || !xds::LooksLikeIp(parts->host)) return "dns:///" + address;
  return (parts->host.find(':') == std::string::npos ? "ipv4:" : "ipv6:") + address;
}

constexpr std::chrono::seconds kMetricsInterval(1);

BackendState StateFrom(grpc_connectivity_state state) {
  switch (state) {
    case GRPC_CHANNEL_READY:
      return BackendState::kReady;
    case GRPC_CHANNEL_TRANSIENT_FAILURE:
    case GRPC_CHANNEL_SHUTDOWN:
      return BackendState::kFailing;
    default:
      return BackendState::kConnecting;
  }
}

}  // namespace

Core::Core(Options options, Service service, std::shared_ptr<Hub> hub)
    : options_(std::move(options)),
      service_(std::move(service)),
      hub_(std::move(hub)),
      routes_(std::make_unique<Routes>(Routes{.table = {&options_.policy, &turns_, {}, nullptr}})),
      roster_(options_.roster),
      metrics_(options_.client->metrics(), service_.name()) {
  // So that the clients of a service do not all begin with the same backend.
  turns_.value = std::random_device{}();
  number_ = hub_->Join(this);
  inbox_->wake = hub_->Waker(number_);
  subscription_ =
      service_.Subscribe([wake = inbox_->wake](const Snapshot&, const Delta&) { wake(); });
}

Core::~Core() {
  subscription_.Cancel();
  hub_->Leave(number_);
}

void Core::OnState(uint64_t connection, grpc_connectivity_state state) {
  const std::lock_guard lock(mutex_);
  changed_ |= roster_.SetState(connection, StateFrom(state), SteadyNow());
}

Instant Core::OnTurn(Instant now) {
  changed_ |= TakeSnapshot();
  changed_ |= TakeInbox(now);
  {
    const std::lock_guard lock(mutex_);
    changed_ |= roster_.Advance(now);
  }
  if (changed_) Publish(now);
  changed_ = false;
  if (!metrics_.enabled()) return roster_.NextDue();
  if (metrics_due_ <= now) {
    metrics_.Update(Stats());
    metrics_due_ = now + kMetricsInterval;
  }
  return std::min(roster_.NextDue(), metrics_due_);
}

bool Core::TakeSnapshot() {
  std::shared_ptr<const Snapshot> snapshot = service_.snapshot();
  if (!snapshot->known() || snapshot == snapshot_) return false;
  std::vector<const Instance*> instances;
  instances.reserve(snapshot->instances().size());
  for (const Instance& instance : snapshot->instances()) instances.push_back(&instance);
  snapshot_ = std::move(snapshot);
  std::vector<std::shared_ptr<Connection>> ended;  // without the lock
  const std::lock_guard lock(mutex_);
  // What is wrong with addresses is logged by the waiting channel, which gets the same ones.
  const Roster::Change change = roster_.SetInstances(instances);
  for (const uint64_t id : change.left) {
    ended.push_back(std::move(connections_.at(id)));
    connections_.erase(id);
  }
  for (const uint64_t id : change.joined) Connect(id);
  return true;
}

void Core::Connect(uint64_t id) {
  const Roster::Member& member = *roster_.Find(id);
  const auto fail = [inbox = inbox_, id] {
    {
      const std::lock_guard lock(inbox->mutex);
      inbox->failing.push_back(id);
    }
    inbox->wake();
  };
  const std::optional<Outlier>& outlier = options_.roster.outlier;
  auto connection = std::make_shared<Connection>(
      Connection::Options{.target = TargetOf(member.instance.address),
                          .credentials = options_.credentials,
                          .args = options_.args,
                          .load = member.load,
                          .methods = methods_,
                          .failures_limit = outlier.has_value() ? outlier->consecutive_failures : 0,
                          .on_failures = fail});
  hub_->Watch(number_, id, connection->channel());
  connections_.emplace(id, std::move(connection));
}

bool Core::TakeInbox(Instant now) {
  std::vector<uint64_t> failing;
  {
    const std::lock_guard lock(inbox_->mutex);
    failing.swap(inbox_->failing);
  }
  const std::lock_guard lock(mutex_);
  bool changed = false;
  for (const uint64_t id : failing) changed |= roster_.Eject(id, now);
  return changed;
}

std::unique_ptr<const Routes> Core::MakeRoutes(Instant now) {
  const std::lock_guard lock(mutex_);
  auto routes = std::make_unique<Routes>(
      Routes{.table = {&options_.policy, &turns_, roster_.Choose(now), roster_.ring()},
             .known = snapshot_ != nullptr,
             .any = !roster_.members().empty()});
  const Roster::Candidates& chosen = routes->table.candidates();
  panic_ = chosen.panic;
  for (const uint64_t id : chosen.ids) routes->ready.push_back(connections_.at(id));
  if (!routes->ready.empty()) return routes;
  for (const auto& [id, connection] : connections_) routes->unready.push_back(connection);
  routes->failing =
      routes->any &&
      std::all_of(roster_.members().begin(), roster_.members().end(),
                  [](const auto& entry) { return entry.second.state == BackendState::kFailing; });
  return routes;
}

void Core::Publish(Instant now) {
  std::unique_ptr<const Routes> routes = MakeRoutes(now);
  const grpc_connectivity_state state = StateOf(*routes);
  // Without the lock: this waits for calls that are just picking.
  routes_.Replace(std::move(routes));
  bell_.Set(state);
}

grpc_connectivity_state Core::StateOf(const Routes& routes) const {
  if (!routes.ready.empty()) return GRPC_CHANNEL_READY;
  const bool hopeless = routes.known && (!routes.any || routes.failing);
  return hopeless ? GRPC_CHANNEL_TRANSIENT_FAILURE : GRPC_CHANNEL_CONNECTING;
}

PickingStats Core::Stats() const {
  const Instant now = SteadyNow();
  PickingStats stats{.service = service(),
                     .waited = waited.load(std::memory_order_relaxed),
                     .refused = refused.load(std::memory_order_relaxed)};
  const std::lock_guard lock(mutex_);
  stats.panic = panic_;
  stats.unusable = roster_.unusable();
  for (const auto& [address, member] : roster_.members()) {
    const BackendLoad& load = *member.load;
    BackendStats backend{.address = address,
                         .zone = member.instance.zone,
                         .state = member.state,
                         .weight = member.view == nullptr ? 0 : member.view->weight(),
                         .picks = load.picks.load(std::memory_order_relaxed),
                         .in_flight = load.in_flight.load(std::memory_order_relaxed),
                         .failures = load.failures.load(std::memory_order_relaxed)};
    if (member.ejection.ejected()) {
      backend.ejected_for =
          absl::FromChrono(std::max(Duration::zero(), member.ejection.until() - now));
    }
    stats.backends.push_back(std::move(backend));
  }
  return stats;
}

}  // namespace conclave::picking
