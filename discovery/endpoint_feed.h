// EndpointFeed: carries a service's instances to the channels of one cluster: from the snapshot to
// IP addresses.
//
// Takes the instances that say they serve, resolves host names (a name stands for all its
// addresses), and gives the hub the set. An address that cannot be used is left out, counted and
// logged once, with no more than kComplaintsMax lines per update; it never costs the others. Until
// the service is known the hub is told nothing, and calls wait.
//
// Thread-safe: driven by the client's callback thread and the resolver's worker.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "conclave/discovery/discovery.h"
#include "conclave/discovery/host_resolver.h"
#include "conclave/discovery/watched_service.h"
#include "conclave/discovery/xds/endpoint_set.h"

namespace conclave {

class ChannelHub;

class EndpointFeed {
 public:
  static constexpr size_t kComplaintsMax = 10;

  struct Stats {
    int64_t endpoints = 0;
    int64_t left_out = 0;
    uint64_t updates = 0;
  };
  // Where it goes, and how.
  struct Target {
    std::string cluster;
    xds::EndpointSet::Layout layout{};
  };

  EndpointFeed(Service service, std::shared_ptr<WatchedService> watched,
               std::shared_ptr<ChannelHub> hub, Target target,
               std::shared_ptr<HostResolver> resolver);
  ~EndpointFeed();
  EndpointFeed(const EndpointFeed&) = delete;
  EndpointFeed& operator=(const EndpointFeed&) = delete;

  Stats stats() const;
  const Service& service() const { return service_; }

 private:
  using Skipped = std::vector<xds::EndpointSet::Skipped>;

  void Update();
  // All with mutex_ held. The candidates; *waiting: for the first answer to a host name.
  std::vector<xds::EndpointSet::Candidate> Gather(const Snapshot& snapshot, Skipped* skipped,
                                                  bool* waiting);
  void Complain(const Skipped& skipped);

  const Service service_;
  const std::shared_ptr<WatchedService> watched_;  // for its log and its metrics
  const std::shared_ptr<ChannelHub> hub_;
  const Target target_;
  const std::shared_ptr<HostResolver> resolver_;
  uint64_t number_ = 0;  // at the resolver
  mutable std::mutex mutex_;
  std::set<std::string> complaints_;  // as of the last update; guarded by mutex_
  Stats stats_;                       // guarded by mutex_
  Subscription subscription_;
};

}  // namespace conclave
