// ServiceView: what a Service handle points to: the latest snapshot through one filter, who waits
// for the next, and who subscribes to them.
//
// All handles of one name and filter share a view, all views of a name share its WatchedService.
// The watch knows its views weakly; the last handle ends the view, the last view ends the watch,
// also from within one of its own callbacks.
//
// Thread-safe. Subscribers run on the client's callback thread. (std::mutex, not absl::Mutex:
// ThreadSanitizer cannot see through Debian's.)
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/filter.h"

namespace conclave {

class WatchedService;

struct Subscription::Rep {
  std::mutex mutex;
  std::condition_variable idle;
  bool cancelled = false;                // guarded by mutex
  bool running = false;                  // guarded by mutex
  std::thread::id runs_on;               // guarded by mutex
  ServiceCallback callback;              // of the callback thread only
  std::shared_ptr<const Snapshot> last;  // likewise
};

class ServiceView : public std::enable_shared_from_this<ServiceView> {
 public:
  static std::shared_ptr<ServiceView> Make(std::shared_ptr<WatchedService> watched,
                                           SnapshotFilter filter);

  const std::string& name() const;
  std::shared_ptr<const Snapshot> snapshot() const;
  // Grows with every snapshot.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  absl::Time last_heard() const;

  Subscription Subscribe(ServiceCallback callback);
  void Unsubscribe(const std::shared_ptr<Subscription::Rep>& rep);
  absl::StatusOr<std::shared_ptr<const Snapshot>> Wait(
      absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call);

  // Takes over the watch's snapshot. On any thread.
  void Refresh();
  // Tells the subscribers. On the callback thread.
  void DeliverAll();

 private:
  ServiceView(std::shared_ptr<WatchedService> watched, SnapshotFilter filter);
  void Deliver(Subscription::Rep& rep);

  const std::shared_ptr<WatchedService> watched_;
  const SnapshotFilter filter_;

  std::mutex refreshing_;
  std::shared_ptr<const Snapshot> seen_;  // guarded by refreshing_: the unfiltered one

  mutable std::mutex mutex_;
  std::condition_variable published_;
  std::shared_ptr<const Snapshot> snapshot_;                     // guarded by mutex_
  std::vector<std::shared_ptr<Subscription::Rep>> subscribers_;  // guarded by mutex_
  std::atomic<uint64_t> version_ = 0;                            // written under mutex_
};

}  // namespace conclave
