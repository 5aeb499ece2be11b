// WatchedService: one service's watch, and the set that it keeps: fed by the watch, guarded against
// sudden shrinking, saved to disk and read back from there.
//
// Threads: the watch's batches, timers and everything that changes the state run on the client's
// callback thread; files are read and written on `disk`, which only carries work to the callback
// thread and back. All of them hold this object weakly, so the last handle ends it.
//
// Times are those of the client's loop. Only how often the set is saved goes by the machine's
// clock, as files do.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/client/client.h"
#include "conclave/client/core/log.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/discovery_metrics.h"
#include "conclave/discovery/service_state.h"
#include "conclave/discovery/worker.h"

namespace conclave {

class ServiceView;

class WatchedService : public std::enable_shared_from_this<WatchedService> {
 public:
  // What all services of a Discovery have in common.
  struct World {
    Client client;
    DiscoveryOptions options;
    std::shared_ptr<Worker> worker;
    std::shared_ptr<Worker> disk;
  };

  WatchedService(std::shared_ptr<const World> world, const std::string& service);

  void Begin();
  void AddView(const std::shared_ptr<ServiceView>& view);

  const std::string& name() const { return name_; }
  const Client& client() const { return world_->client; }
  const ServiceMetrics& metrics() const { return metrics_; }
  std::shared_ptr<const Snapshot> snapshot() const;
  absl::Time last_heard() const;
  void Log(LogLevel level, std::string_view line) const;

 private:
  // On the callback thread.
  void OnBatch(const WatchBatch& batch);
  void Accept(ServiceState::Change change);
  void CountNews();
  void WatchTheGuard();
  void OnGuardTimer();
  void AskForConfirmation(absl::Time now);
  void RefreshStaleness();
  void ScheduleSave();
  void LoadCacheIfSilent();

  // On the disk's thread.
  void LoadCache();
  void SaveCache();

  void StartWatch();
  absl::Time Now() const;  // of the wall, going on with the client's clock
  // Runs `step` on the callback thread after `delay` on the client's clock, if this is still there
  // then.
  void After(absl::Duration delay, void (WatchedService::*step)());

  const std::shared_ptr<const World> world_;
  const std::string name_;
  const std::string prefix_;  // of all keys of the service
  const ServiceMetrics metrics_;
  const Duration ahead_at_begin_;  // of the client's clock

  // Of the callback thread only.
  ServiceState state_;
  ServiceState::Counters counted_;
  bool guard_timer_set_ = false;
  std::optional<absl::Time> confirmation_asked_;  // for the suspicion of this time
  bool staleness_timer_set_ = false;
  bool saving_ = false;
  absl::Time last_save_ = absl::InfinitePast();

  std::atomic<int64_t> last_heard_ns_ = 0;  // unix; 0: never

  mutable std::mutex mutex_;
  std::shared_ptr<const Snapshot> snapshot_;       // guarded by mutex_
  std::vector<std::weak_ptr<ServiceView>> views_;  // guarded by mutex_
  Watch watch_;                                    // guarded by mutex_
  bool cache_trouble_logged_ = false;              // of the disk's thread
};

}  // namespace conclave
