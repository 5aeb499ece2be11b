// EndpointFeed: carries a service's instances to an ADS server (that of the channels, or one for
// other programs): from the snapshot to IP addresses.
//
// Takes the instances that say they serve, resolves host names (a name stands for all its
// addresses), and delivers the set. An address that cannot be used is left out, counted and
// logged once, with no more than kComplaintsMax lines per update; it never costs the others. Until
// the service is known nothing is delivered, and calls wait.
//
// Thread-safe: driven by the client's callback thread and the resolver's worker.
#pragma once

#include <cstdint>
#include <functional>
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
    std::function<void(xds::EndpointSet)> deliver;  // must not block, nor end the feed
    xds::EndpointSet::Layout layout{};
  };

  EndpointFeed(Service service, std::shared_ptr<WatchedService> watched, Target target,
               std::shared_ptr<HostResolver> resolver);
  ~EndpointFeed();  // waits for a delivery that is under way
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
  const Target target_;
  const std::shared_ptr<HostResolver> resolver_;
  uint64_t number_ = 0;  // at the resolver
  mutable std::mutex mutex_;
  std::set<std::string> complaints_;  // as of the last update; guarded by mutex_
  Stats stats_;                       // guarded by mutex_
  Subscription subscription_;
};

}  // namespace conclave
