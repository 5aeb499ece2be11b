// EndpointFeed: carries a service's instances to the channels: from the snapshot to IP addresses.
//
// Takes the instances that say they serve, resolves host names (a name stands for all its
// addresses), and gives the hub the set. An address that cannot be used is left out and logged
// once; it never costs the others. Until the service is known the hub is told nothing, and calls
// wait.
//
// Thread-safe: driven by the client's callback thread and the resolver's worker.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/host_resolver.h"

namespace conclave {

class ChannelHub;

class EndpointFeed {
 public:
  EndpointFeed(Service service, std::shared_ptr<ChannelHub> hub,
               std::shared_ptr<HostResolver> resolver);
  ~EndpointFeed();
  EndpointFeed(const EndpointFeed&) = delete;
  EndpointFeed& operator=(const EndpointFeed&) = delete;

 private:
  void Update() ABSL_LOCKS_EXCLUDED(mutex_);

  const Service service_;
  const std::shared_ptr<ChannelHub> hub_;
  const std::shared_ptr<HostResolver> resolver_;
  uint64_t number_ = 0;  // at the resolver
  absl::Mutex mutex_;
  std::set<std::string> complaints_ ABSL_GUARDED_BY(mutex_);  // as of the last update
  Subscription subscription_;
};

}  // namespace conclave
