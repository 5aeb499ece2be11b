// The inside of Discovery: the shared watches, and what the channels need. No gRPC types here.
#pragma once

#include <functional>
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
#include "conclave/discovery/xds/endpoint_set.h"

namespace conclave {

class ChannelHub;
class EndpointFeed;

class DiscoveryImpl {
 public:
  DiscoveryImpl(Client client, DiscoveryOptions options);

  const Client& client() const { return world_->client; }
  // "host:pid": who this client is, where it chooses a subset and nobody has said.
  const std::string& process() const { return process_; }

  absl::StatusOr<Service> WatchService(std::string_view target, const ServiceFilter& filter);

  // For channels. A feed carries a service's instances to the hub for as long as a channel wants
  // it.
  absl::StatusOr<std::shared_ptr<ChannelHub>> Hub();
  // Channels with equal keys share a feed and its cluster, whose name this gives.
  struct FeedKey {
    std::string service;
    std::string filter;     // SnapshotFilter::NameOf
    std::string balancing;  // whatever else the channels must have in common
    friend auto operator<=>(const FeedKey&, const FeedKey&) = default;
  };
  std::string WantFeed(const FeedKey& key, const ServiceFilter& filter,
                       const xds::EndpointSet::Layout& layout);
  std::shared_ptr<EndpointFeed> FindFeed(const FeedKey& key);
  void ReleaseFeed(const FeedKey& key);
  // One that belongs to the caller, for an ADS server of its own; InvalidArgument for what cannot
  // be a service's name. `deliver` is as in EndpointFeed::Target.
  absl::StatusOr<std::unique_ptr<EndpointFeed>> MakeFeed(
      std::string_view service, std::function<void(xds::EndpointSet)> deliver);

 private:
  struct FeedEntry {
    std::string cluster;
    std::shared_ptr<EndpointFeed> feed;
    int channels = 0;
  };
  struct Watched {
    std::shared_ptr<WatchedService> service;
    std::shared_ptr<ServiceView> view;
  };

  // With mutex_ held.
  Watched WatchedLocked(const std::string& name, const ServiceFilter& filter);

  const std::shared_ptr<const WatchedService::World> world_;
  const std::shared_ptr<HostResolver> resolver_;
  const absl::Status options_status_;
  const std::string process_;

  std::mutex mutex_;
  // All guarded by mutex_.
  std::map<std::string, std::weak_ptr<WatchedService>> services_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<ServiceView>> views_;
  std::shared_ptr<ChannelHub> hub_;
  std::map<FeedKey, FeedEntry> feeds_;
  uint64_t clusters_made_ = 0;
};

}  // namespace conclave
