#include "conclave/discovery/watched_service.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client_impl.h"
#include "conclave/discovery/cache_file.h"
#include "conclave/discovery/service_view.h"

namespace conclave {
namespace {

// A watch that the server has refused for good (no permission, say) is begun anew after this time.
constexpr absl::Duration kWatchRetry = absl::Seconds(5);
// A set that changes all the time is written to disk this often.
constexpr absl::Duration kSaveEvery = absl::Seconds(5);
constexpr absl::Duration kStalenessEvery = absl::Seconds(1);

// How far the client's clock is ahead of the machine's. Always the same, but where a test moves the
// client's clock.
Duration AheadOfMachine(const Client& client) {
  timespec machine{};
  clock_gettime(CLOCK_BOOTTIME, &machine);  // goes on while the machine sleeps, as the client's
  return client.impl()->loop().Now().time_since_epoch() -
         absl::ToChronoNanoseconds(absl::DurationFromTimespec(machine));
}

}  // namespace

WatchedService::WatchedService(std::shared_ptr<const World> world, const std::string& service)
    : world_(std::move(world)),
      name_(service),
      prefix_(CodecFor(world_->options.format).Prefix(service)),
      metrics_(world_->client.impl()->metrics(), service),
      ahead_at_begin_(AheadOfMachine(world_->client)),
      state_({.service = service,
              .decode = [service, &codec = CodecFor(world_->options.format)](
                            std::string_view key,
                            std::string_view value) { return codec.Decode(service, key, value); },
              .shrink_guard = world_->options.shrink_guard,
              .shrink_hold = world_->options.shrink_hold}),
      snapshot_(state_.snapshot()) {}

void WatchedService::Log(LogLevel level, std::string_view line) const {
  world_->client.impl()->Log(level, absl::StrCat("service ", name_, ": ", std::string(line)));
}

std::shared_ptr<const Snapshot> WatchedService::snapshot() const {
  std::lock_guard lock(mutex_);
  return snapshot_;
}

absl::Time WatchedService::last_heard() const {
  const int64_t ns = last_heard_ns_.load(std::memory_order_relaxed);
  return ns == 0 ? absl::InfinitePast() : absl::FromUnixNanos(ns);
}

void WatchedService::AddView(const std::shared_ptr<ServiceView>& view) {
  std::lock_guard lock(mutex_);
  std::erase_if(views_, [](const auto& weak) { return weak.expired(); });
  views_.push_back(view);
}

absl::Time WatchedService::Now() const {
  return absl::Now() + absl::FromChrono(AheadOfMachine(client()) - ahead_at_begin_);
}

void WatchedService::After(absl::Duration delay, void (WatchedService::*step)()) {
  const std::shared_ptr<ClientImpl>& impl = client().impl();
  // The loop's thread must not become the last owner of this.
  impl->loop().Post([weak = weak_from_this(), weak_impl = std::weak_ptr<ClientImpl>(impl), step,
                     delay = absl::ToChronoNanoseconds(delay)](Engine& engine) {
    engine.After(delay, [weak, weak_impl, step] {
      const std::shared_ptr<ClientImpl> still = weak_impl.lock();
      if (still == nullptr) return;
      still->callbacks().Run([weak, step] {
        if (const auto self = weak.lock()) (*self.*step)();
      });
    });
  });
}

void WatchedService::Begin() {
  StartWatch();
  if (!world_->options.cache_dir.empty()) {
    After(world_->options.cache_after, &WatchedService::LoadCacheIfSilent);
  }
}

void WatchedService::StartWatch() {
  WatchOptions options;
  options.list_first = true;
  options.serializable_list = !world_->options.linearizable;
  options.report_connection = true;
  options.report_progress = true;
  Watch watch = world_->client.Watch(Prefix(prefix_), options,
                                     [weak = weak_from_this()](const WatchBatch& batch) {
                                       if (const auto self = weak.lock()) self->OnBatch(batch);
                                     });
  {
    std::lock_guard lock(mutex_);
    std::swap(watch, watch_);
  }
  // The watch before it, if any, ends here: without the lock, because it waits for its callback.
}

void WatchedService::OnBatch(const WatchBatch& batch) {
  const absl::Time now = Now();
  if (batch.connected && batch.status.ok()) last_heard_ns_ = absl::ToUnixNanos(now);
  if (!batch.status.ok()) {
    Log(LogLevel::kError,
        absl::StrCat("the watch was refused, will be tried again in ",
                     absl::FormatDuration(kWatchRetry), ": ", batch.status.ToString()));
    After(kWatchRetry, &WatchedService::StartWatch);
  }
  Accept(state_.Apply(batch, now));
}

void WatchedService::Accept(ServiceState::Change change) {
  for (const std::string& line : change.complaints) {
    world_->client.impl()->Log(LogLevel::kWarning, line);
  }
  CountNews();
  if (change.snapshot != nullptr) {
    std::vector<std::weak_ptr<ServiceView>> views;
    {
      std::lock_guard lock(mutex_);
      snapshot_ = change.snapshot;
      views = views_;
    }
    metrics_.CountUpdate();
    metrics_.SetInstances(static_cast<int64_t>(change.snapshot->instances().size()),
                          change.snapshot->skipped(), change.snapshot->held());
    for (const auto& weak : views) {
      if (const auto view = weak.lock()) {
        view->Refresh();
        view->DeliverAll();
      }
    }
    ScheduleSave();
  }
  if (!staleness_timer_set_) RefreshStaleness();
  WatchTheGuard();
}

void WatchedService::CountNews() {
  const ServiceState::Counters& now = state_.counters();
  metrics_.CountLists(now.lists - counted_.lists);
  metrics_.CountHolds(now.holds - counted_.holds);
  metrics_.CountUnreadable(now.unreadable - counted_.unreadable);
  if (now.holds > counted_.holds) {
    Log(LogLevel::kWarning,
        absl::StrCat("the list lacks ", state_.snapshot()->held(), " of ",
                     state_.snapshot()->instances().size(),
                     " instances; they are kept until that is confirmed, for at most ",
                     absl::FormatDuration(world_->options.shrink_hold)));
  }
  counted_ = now;
}

// ---- The shrink guard

void WatchedService::WatchTheGuard() {
  if (guard_timer_set_) return;
  std::optional<absl::Time> due = state_.NextTick();
  if (!due.has_value()) return;
  const std::optional<absl::Time> confirm = state_.NextConfirm();
  if (confirmation_asked_ != confirm) due = std::min(*due, *confirm);
  guard_timer_set_ = true;
  After(std::max(*due - Now(), absl::ZeroDuration()), &WatchedService::OnGuardTimer);
}

void WatchedService::OnGuardTimer() {
  guard_timer_set_ = false;
  const std::optional<absl::Time> confirm = state_.NextConfirm();
  const absl::Time now = Now();
  if (confirm.has_value() && confirmation_asked_ != confirm && now >= *confirm) {
    confirmation_asked_ = confirm;
    AskForConfirmation(now);
  }
  Accept(state_.Tick(now));
}

void WatchedService::AskForConfirmation(absl::Time now) {
  RangeRequest request{.range = Prefix(prefix_)};
  request.options.keys_only = true;
  world_->client.RangeAsync(
      std::move(request), {},
      [weak = weak_from_this(), asked_at = now](absl::StatusOr<RangeResult> result) {
        const auto self = weak.lock();
        if (self == nullptr || !result.ok()) return;
        self->Accept(self->state_.Confirm(result->kvs, asked_at, self->Now()));
      });
}

void WatchedService::RefreshStaleness() {
  if (!metrics_.enabled()) return;
  const std::optional<absl::Time> since = state_.snapshot()->stale_since();
  staleness_timer_set_ = since.has_value();
  metrics_.SetStaleSeconds(since.has_value() ? absl::ToDoubleSeconds(Now() - *since) : 0);
  if (since.has_value()) After(kStalenessEvery, &WatchedService::RefreshStaleness);
}

// ---- The set on disk

void WatchedService::ScheduleSave() {
  if (world_->options.cache_dir.empty() || saving_) return;
  const Snapshot& now = *state_.snapshot();
  if (now.stale_since().has_value() || now.suspect_since().has_value()) return;
  saving_ = true;
  const absl::Duration wait = last_save_ + kSaveEvery - absl::Now();
  world_->disk->RunAfter(std::clamp(wait, absl::ZeroDuration(), kSaveEvery),
                         [weak = weak_from_this()] {
                           if (const auto self = weak.lock()) self->SaveCache();
                         });
}

void WatchedService::SaveCache() {
  const std::shared_ptr<const Snapshot> set = snapshot();
  if (!set->stale_since().has_value() && !set->suspect_since().has_value()) {
    const absl::Status written =
        CacheFile::Write(CacheFile::PathOf(world_->options.cache_dir, name_),
                         CacheFile::Encode({.service = name_,
                                            .revision = set->revision(),
                                            .saved_at = absl::Now(),
                                            .instances = set->instances()}));
    metrics_.CountCacheWrite(written.ok());
    if (!written.ok() && !std::exchange(cache_trouble_logged_, true)) {
      Log(LogLevel::kWarning,
          absl::StrCat("the set could not be saved: ", std::string(written.message())));
    }
  }
  client().RunOnCallbackThread([weak = weak_from_this(), set] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->saving_ = false;
    self->last_save_ = absl::Now();
    if (self->state_.snapshot() != set) self->ScheduleSave();
  });
}

void WatchedService::LoadCacheIfSilent() {
  if (snapshot()->known()) return;
  world_->disk->RunAfter(absl::ZeroDuration(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->LoadCache();
  });
}

void WatchedService::LoadCache() {
  absl::StatusOr<CacheFile::Content> content =
      CacheFile::Read(CacheFile::PathOf(world_->options.cache_dir, name_), name_);
  if (!content.ok()) {
    if (!absl::IsNotFound(content.status())) {
      Log(LogLevel::kWarning,
          absl::StrCat("the saved set is not used: ", std::string(content.status().message())));
    }
    return;
  }
  client().RunOnCallbackThread([weak = weak_from_this(), content = *std::move(content)] {
    const auto self = weak.lock();
    if (self == nullptr || self->state_.snapshot()->known()) return;
    self->Log(LogLevel::kWarning,
              absl::StrCat("the cluster is out of reach; begins with the ",
                           content.instances.size(), " instances saved at ",
                           absl::FormatTime(content.saved_at, absl::UTCTimeZone())));
    self->Accept(self->state_.Restore(content.revision, content.instances, content.saved_at));
  });
}

}  // namespace conclave
