// The inside of Discovery: the shared watches, and what the channels need. No gRPC types here.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/host_resolver.h"
#include "conclave/discovery/service_view.h"
#include "conclave/discovery/watched_service.h"
#include "conclave/discovery/worker.h"

namespace conclave {

class ChannelHub;
class EndpointFeed;

class DiscoveryImpl {
 public:
  DiscoveryImpl(Client client, DiscoveryOptions options);

  const Client& client() const { return world_->client; }

  absl::StatusOr<Service> WatchService(std::string_view target, const ServiceFilter& filter);

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

  Service WatchedLocked(const std::string& name, const ServiceFilter& filter);

  const std::shared_ptr<const WatchedService::World> world_;
  const std::shared_ptr<HostResolver> resolver_;
  const absl::Status options_status_;
  const std::string process_;  // "host:pid", for filters that choose a subset

  std::mutex mutex_;
  // All guarded by mutex_.
  std::map<std::string, std::weak_ptr<WatchedService>> services_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<ServiceView>> views_;
  std::shared_ptr<ChannelHub> hub_;
  std::map<std::string, FeedEntry> feeds_;
};

}  // namespace conclave
