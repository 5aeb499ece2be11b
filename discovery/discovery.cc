#include "conclave/discovery/discovery.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/discovery_impl.h"
#include "conclave/discovery/endpoint_feed.h"

namespace conclave {
namespace {

// A watch that the server has refused for good (no permission, say) is begun anew after this time.
constexpr absl::Duration kWatchRetry = absl::Seconds(5);

}  // namespace

absl::StatusOr<std::string> ParseServiceTarget(std::string_view target) {
  constexpr std::string_view kScheme = "etcd:///";
  std::string_view name = target;
  if (name.starts_with(kScheme)) name.remove_prefix(kScheme.size());
  if (absl::Status status = ValidateServiceName(name); !status.ok()) return status;
  return std::string(name);
}

// ---- WatchedService ----

WatchedService::WatchedService(Client client, std::shared_ptr<Worker> worker, std::string service,
                               bool linearizable)
    : client_(std::move(client)),
      worker_(std::move(worker)),
      name_(service),
      linearizable_(linearizable),
      state_(std::move(service)),
      snapshot_(state_.Unknown()) {}

void WatchedService::Begin() {
  WatchOptions options;
  options.list_first = true;
  options.serializable_list = !linearizable_;
  options.report_connection = true;
  Watch watch = client_.Watch(Prefix(ServicePrefix(name_)), options,
                              [weak = weak_from_this()](const WatchBatch& batch) {
                                if (const auto self = weak.lock()) self->OnBatch(batch);
                              });
  {
    absl::MutexLock lock(&mutex_);
    std::swap(watch, watch_);
  }
  // The watch before it, if any, ends here: without the lock, because it waits for its callback.
}

void WatchedService::OnBatch(const WatchBatch& batch) {
  ServiceState::Change change = state_.Apply(batch, absl::Now());
  for (const std::string& line : change.complaints) spdlog::warn("{}", line);
  if (!batch.status.ok()) {
    spdlog::error("service {}: the watch was refused, will be tried again in {}: {}", name_,
                  absl::FormatDuration(kWatchRetry), batch.status.ToString());
    worker_->RunAfter(kWatchRetry, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Begin();
    });
  }
  if (change.snapshot == nullptr) return;
  std::vector<std::shared_ptr<Subscription::Rep>> subscribers;
  {
    absl::MutexLock lock(&mutex_);
    snapshot_.store(std::move(change.snapshot));
    published_.SignalAll();
    subscribers = subscribers_;
  }
  for (const auto& rep : subscribers) Deliver(*rep);
}

void WatchedService::Deliver(Subscription::Rep& rep) {
  const std::shared_ptr<const Snapshot> now = snapshot();
  if (!now->known() || now == rep.last) return;
  const std::shared_ptr<const Snapshot> before =
      rep.last != nullptr ? rep.last : std::make_shared<Snapshot>();
  const Delta delta = ServiceState::Difference(*before, *now);
  if (delta.empty() && before->known() && before->stale_since() == now->stale_since()) return;
  {
    absl::MutexLock lock(&rep.mutex);
    if (rep.cancelled) return;
    rep.running = true;
    rep.runs_on = std::this_thread::get_id();
  }
  rep.last = now;
  rep.callback(*now, delta);
  absl::MutexLock lock(&rep.mutex);
  rep.running = false;
}

Subscription WatchedService::Subscribe(ServiceCallback callback) {
  auto rep = std::make_shared<Subscription::Rep>();
  rep->callback = std::move(callback);
  {
    absl::MutexLock lock(&mutex_);
    subscribers_.push_back(rep);
  }
  client_.RunOnCallbackThread([weak = weak_from_this(), rep] {
    if (const auto self = weak.lock()) self->Deliver(*rep);
  });
  return Subscription(shared_from_this(), std::move(rep));
}

void WatchedService::Unsubscribe(const std::shared_ptr<Subscription::Rep>& rep) {
  {
    absl::MutexLock lock(&mutex_);
    std::erase(subscribers_, rep);
  }
  absl::MutexLock lock(&rep->mutex);
  rep->cancelled = true;
  if (rep->running && rep->runs_on == std::this_thread::get_id()) return;
  const auto idle = [&rep]() ABSL_SHARED_LOCKS_REQUIRED(rep->mutex) { return !rep->running; };
  rep->mutex.Await(absl::Condition(&idle));
}

absl::StatusOr<std::shared_ptr<const Snapshot>> WatchedService::Wait(
    absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call) {
  absl::Time deadline = call.deadline;
  if (call.timeout.has_value()) deadline = std::min(deadline, absl::Now() + *call.timeout);
  const std::stop_callback wake(call.stop, [this] {
    absl::MutexLock lock(&mutex_);
    published_.SignalAll();
  });
  absl::MutexLock lock(&mutex_);
  bool expired = false;
  while (true) {
    std::shared_ptr<const Snapshot> now = snapshot();
    if (condition(*now)) return now;
    if (call.stop.stop_requested()) return absl::CancelledError("the wait was cancelled");
    if (expired) {
      return absl::DeadlineExceededError(
          absl::StrCat("service ", name_, " has ", now->instances().size(),
                       " instances; what was waited for did not happen in time"));
    }
    expired = published_.WaitWithDeadline(&mutex_, deadline);
  }
}

// ---- Subscription and Service ----

Subscription::Subscription(std::shared_ptr<WatchedService> service, std::shared_ptr<Rep> rep)
    : service_(std::move(service)), rep_(std::move(rep)) {}

Subscription& Subscription::operator=(Subscription&& other) noexcept {
  if (this != &other) {
    Cancel();
    service_ = std::move(other.service_);
    rep_ = std::move(other.rep_);
  }
  return *this;
}

Subscription::~Subscription() { Cancel(); }

void Subscription::Cancel() {
  if (rep_ == nullptr) return;
  service_->Unsubscribe(rep_);
  rep_.reset();
  service_.reset();
}

const std::string& Service::name() const { return watched_->name(); }
std::shared_ptr<const Snapshot> Service::snapshot() const { return watched_->snapshot(); }
Subscription Service::Subscribe(ServiceCallback callback) const {
  return watched_->Subscribe(std::move(callback));
}
absl::StatusOr<std::shared_ptr<const Snapshot>> Service::Wait(
    absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call) const {
  return watched_->Wait(condition, call);
}

// ---- Discovery ----

DiscoveryImpl::DiscoveryImpl(Client client, DiscoveryOptions options)
    : client_(std::move(client)),
      options_(options),
      worker_(std::make_shared<Worker>()),
      resolver_(std::make_shared<HostResolver>(worker_, options.resolve_interval)) {}

Service DiscoveryImpl::WatchedLocked(const std::string& name) {
  std::erase_if(services_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<WatchedService>& known = services_[name];
  std::shared_ptr<WatchedService> watched = known.lock();
  if (watched == nullptr) {
    watched = std::make_shared<WatchedService>(client_, worker_, name, options_.linearizable);
    watched->Begin();
    known = watched;
  }
  return Service(std::move(watched));
}

absl::StatusOr<Service> DiscoveryImpl::WatchService(std::string_view target) {
  CONCLAVE_ASSIGN_OR_RETURN(const std::string name, ParseServiceTarget(target));
  absl::MutexLock lock(&mutex_);
  return WatchedLocked(name);
}

absl::StatusOr<std::shared_ptr<ChannelHub>> DiscoveryImpl::Hub() {
  absl::MutexLock lock(&mutex_);
  if (hub_ == nullptr) {
    CONCLAVE_ASSIGN_OR_RETURN(hub_, ChannelHub::Create());
  }
  return hub_;
}

void DiscoveryImpl::WantFeed(const std::string& service) {
  absl::MutexLock lock(&mutex_);
  CONCLAVE_CHECK(hub_ != nullptr, "a feed needs the hub");
  FeedEntry& entry = feeds_[service];
  if (entry.channels++ == 0) {
    entry.feed = std::make_shared<EndpointFeed>(WatchedLocked(service), hub_, resolver_);
  }
}

void DiscoveryImpl::ReleaseFeed(const std::string& service) {
  std::shared_ptr<EndpointFeed> last;  // destroyed without the lock: that waits for a callback
  absl::MutexLock lock(&mutex_);
  const auto found = feeds_.find(service);
  CONCLAVE_CHECK(found != feeds_.end(), service);
  if (--found->second.channels > 0) return;
  last = std::move(found->second.feed);
  feeds_.erase(found);
  hub_->ForgetEndpoints(service);
}

Discovery::Discovery(Client client, DiscoveryOptions options)
    : impl_(std::make_shared<DiscoveryImpl>(std::move(client), options)) {}

absl::StatusOr<Service> Discovery::Watch(std::string_view service) const {
  return impl_->WatchService(service);
}

}  // namespace conclave
