#include "conclave/discovery/service_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/waiting_thread.h"
#include "conclave/discovery/watched_service.h"

namespace conclave {

std::shared_ptr<ServiceView> ServiceView::Make(std::shared_ptr<WatchedService> watched,
                                               SnapshotFilter filter) {
  std::shared_ptr<ServiceView> view(new ServiceView(watched, std::move(filter)));
  watched->AddView(view);
  view->Refresh();
  return view;
}

ServiceView::ServiceView(std::shared_ptr<WatchedService> watched, SnapshotFilter filter)
    : watched_(std::move(watched)), filter_(std::move(filter)) {}

const std::string& ServiceView::name() const { return watched_->name(); }
absl::Time ServiceView::last_heard() const { return watched_->last_heard(); }

std::shared_ptr<const Snapshot> ServiceView::snapshot() const {
  std::lock_guard lock(mutex_);
  return snapshot_;
}

void ServiceView::Refresh() {
  std::lock_guard order(refreshing_);  // or an older snapshot could overtake a newer one
  std::shared_ptr<const Snapshot> all = watched_->snapshot();
  if (all == seen_) return;
  std::shared_ptr<const Snapshot> passed = filter_.Apply(all);
  seen_ = std::move(all);
  {
    std::lock_guard lock(mutex_);
    snapshot_.swap(passed);
    version_.fetch_add(1, std::memory_order_release);
  }
  published_.notify_all();
}

void ServiceView::DeliverAll() {
  std::vector<std::shared_ptr<Subscription::Rep>> subscribers;
  {
    std::lock_guard lock(mutex_);
    subscribers = subscribers_;
  }
  for (const auto& rep : subscribers) Deliver(*rep);
}

void ServiceView::Deliver(Subscription::Rep& rep) {
  const std::shared_ptr<const Snapshot> now = snapshot();
  if (!now->known() || now == rep.last) return;
  const std::shared_ptr<const Snapshot> before =
      rep.last != nullptr ? rep.last : std::make_shared<Snapshot>();
  const Delta delta = Difference(*before, *now);
  if (delta.empty() && before->known() && before->stale_since() == now->stale_since() &&
      before->suspect_since() == now->suspect_since()) {
    return;
  }
  {
    std::lock_guard lock(rep.mutex);
    if (rep.cancelled) return;
    rep.running = true;
    rep.runs_on = std::this_thread::get_id();
  }
  rep.last = now;
  rep.callback(*now, delta);
  {
    std::lock_guard lock(rep.mutex);
    rep.running = false;
  }
  rep.idle.notify_all();
}

Subscription ServiceView::Subscribe(ServiceCallback callback) {
  auto rep = std::make_shared<Subscription::Rep>();
  rep->callback = std::move(callback);
  {
    std::lock_guard lock(mutex_);
    subscribers_.push_back(rep);
  }
  watched_->client().RunOnCallbackThread([weak = weak_from_this(), rep] {
    if (const auto self = weak.lock()) self->Deliver(*rep);
  });
  return Subscription(shared_from_this(), std::move(rep));
}

void ServiceView::Unsubscribe(const std::shared_ptr<Subscription::Rep>& rep) {
  {
    std::lock_guard lock(mutex_);
    std::erase(subscribers_, rep);
  }
  std::unique_lock lock(rep->mutex);
  rep->cancelled = true;
  if (rep->running && rep->runs_on == std::this_thread::get_id()) return;
  rep->idle.wait(lock, [&rep] { return !rep->running; });
}

absl::StatusOr<std::shared_ptr<const Snapshot>> ServiceView::Wait(
    absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call) {
  const auto wake = [this] {
    { std::lock_guard lock(mutex_); }  // it either has not looked yet, or is waiting
    published_.notify_all();
  };
  const std::shared_ptr<ClientImpl>& impl = watched_->client().impl();
  const WaitingThread waiting(impl, impl->PatientDeadlineOf(call), wake);
  const std::stop_callback on_stop(call.stop, wake);
  while (true) {
    uint64_t version = 0;
    std::shared_ptr<const Snapshot> now;
    const bool expired = waiting.expired();
    {
      std::lock_guard lock(mutex_);
      version = version_;
      now = snapshot_;
    }
    if (condition(*now)) return now;  // without the lock: it may call this library
    std::unique_lock lock(mutex_);
    if (call.stop.stop_requested()) return absl::CancelledError("the wait was cancelled");
    if (version_ != version) continue;
    if (expired) {
      return absl::DeadlineExceededError(
          absl::StrCat("service ", name(), " has ", now->instances().size(),
                       " instances; what was waited for did not happen in time"));
    }
    published_.wait(lock, [&] {
      return version_ != version || call.stop.stop_requested() || waiting.expired();
    });
  }
}

// ---- Subscription and Service ----

Subscription::Subscription(std::shared_ptr<ServiceView> service, std::shared_ptr<Rep> rep)
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

const std::string& Service::name() const { return view_->name(); }
std::shared_ptr<const Snapshot> Service::snapshot() const { return view_->snapshot(); }
absl::Time Service::last_heard() const { return view_->last_heard(); }
Subscription Service::Subscribe(ServiceCallback callback) const {
  return view_->Subscribe(std::move(callback));
}
absl::StatusOr<std::shared_ptr<const Snapshot>> Service::Wait(
    absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call) const {
  return view_->Wait(condition, call);
}

SnapshotReader::SnapshotReader(const Service& service)
    : view_(service.view_), version_(view_->version()), snapshot_(view_->snapshot()) {}

const Snapshot& SnapshotReader::Read() {
  const uint64_t version = view_->version();
  if (version != version_) {
    snapshot_ = view_->snapshot();
    version_ = version;
  }
  return *snapshot_;
}

}  // namespace conclave
