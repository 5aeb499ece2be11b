// The inside of Discovery: the shared watches, and what the channels need. No gRPC types here.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/host_resolver.h"
#include "conclave/discovery/service_state.h"
#include "conclave/discovery/worker.h"

namespace conclave {

class ChannelHub;
class EndpointFeed;

struct Subscription::Rep {
  absl::Mutex mutex;
  bool cancelled ABSL_GUARDED_BY(mutex) = false;
  bool running ABSL_GUARDED_BY(mutex) = false;
  std::thread::id runs_on ABSL_GUARDED_BY(mutex);
  // Of the callback thread only.
  ServiceCallback callback;
  std::shared_ptr<const Snapshot> last;
};

// One service's watch, shared by its handles and subscriptions. The watch holds it weakly, so the
// last handle ends it, also from within one of its own callbacks.
class WatchedService : public std::enable_shared_from_this<WatchedService> {
 public:
  WatchedService(Client client, std::shared_ptr<Worker> worker, std::string service,
                 bool linearizable);

  void Begin();

  const std::string& name() const { return name_; }
  std::shared_ptr<const Snapshot> snapshot() const { return snapshot_.load(); }
  Subscription Subscribe(ServiceCallback callback);
  void Unsubscribe(const std::shared_ptr<Subscription::Rep>& rep);
  absl::StatusOr<std::shared_ptr<const Snapshot>> Wait(
      absl::FunctionRef<bool(const Snapshot&)> condition, const CallOptions& call);

 private:
  // On the callback thread.
  void OnBatch(const WatchBatch& batch);
  void Deliver(Subscription::Rep& rep);

  const Client client_;
  const std::shared_ptr<Worker> worker_;
  const std::string name_;
  const bool linearizable_;

  ServiceState state_;  // of the callback thread only
  std::atomic<std::shared_ptr<const Snapshot>> snapshot_;

  absl::Mutex mutex_;
  absl::CondVar published_;
  std::vector<std::shared_ptr<Subscription::Rep>> subscribers_ ABSL_GUARDED_BY(mutex_);
  Watch watch_ ABSL_GUARDED_BY(mutex_);
};

class DiscoveryImpl {
 public:
  DiscoveryImpl(Client client, DiscoveryOptions options);

  absl::StatusOr<Service> WatchService(std::string_view target);

  // For channels. A feed carries a service's instances to the hub for as long as a channel wants
  // it.
  absl::StatusOr<std::shared_ptr<ChannelHub>> Hub();
  void WantFeed(const std::string& service);
  void ReleaseFeed(const std::string& service);

 private:
  struct FeedEntry {
    std::shared_ptr<EndpointFeed> feed;
    int channels = 0;
  };

  Service WatchedLocked(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Client client_;
  const DiscoveryOptions options_;
  const std::shared_ptr<Worker> worker_;
  const std::shared_ptr<HostResolver> resolver_;

  absl::Mutex mutex_;
  std::map<std::string, std::weak_ptr<WatchedService>> services_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<ChannelHub> hub_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, FeedEntry> feeds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace conclave
