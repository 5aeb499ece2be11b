#include "conclave/discovery/discovery.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/client/client_impl.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/discovery_impl.h"
#include "conclave/discovery/endpoint_feed.h"

namespace conclave {
namespace {

absl::Status Validate(const DiscoveryOptions& options) {
  if (!(options.shrink_guard >= 0 && options.shrink_guard < 1)) {
    return absl::InvalidArgumentError("DiscoveryOptions: shrink_guard is not in [0, 1)");
  }
  if (options.shrink_guard > 0 && (options.shrink_hold <= absl::ZeroDuration() ||
                                   options.shrink_hold == absl::InfiniteDuration())) {
    return absl::InvalidArgumentError("DiscoveryOptions: shrink_hold must be a positive time");
  }
  if (options.resolve_interval < absl::Seconds(1)) {
    return absl::InvalidArgumentError("DiscoveryOptions: resolve_interval is less than 1 s");
  }
  if (options.cache_after < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("DiscoveryOptions: cache_after is negative");
  }
  return absl::OkStatus();
}

std::string ThisProcess() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return absl::StrCat(host.data(), ":", getpid());
}

}  // namespace

absl::StatusOr<std::string> ParseServiceTarget(std::string_view target) {
  constexpr std::string_view kScheme = "etcd:///";
  std::string_view name = target;
  if (name.starts_with(kScheme)) name.remove_prefix(kScheme.size());
  if (absl::Status status = ValidateServiceName(name); !status.ok()) return status;
  return std::string(name);
}

DiscoveryImpl::DiscoveryImpl(Client client, DiscoveryOptions options)
    : world_(std::make_shared<const WatchedService::World>(
          WatchedService::World{.client = std::move(client),
                                .options = options,
                                .worker = std::make_shared<Worker>(),
                                .disk = std::make_shared<Worker>()})),
      resolver_(std::make_shared<HostResolver>(world_->worker, options.resolve_interval)),
      options_status_(Validate(options)),
      process_(ThisProcess()) {}

DiscoveryImpl::Watched DiscoveryImpl::WatchedLocked(const std::string& name,
                                                    const ServiceFilter& filter) {
  const auto expired = [](const auto& entry) { return entry.second.expired(); };
  std::erase_if(services_, expired);
  std::erase_if(views_, expired);
  Watched watched;
  std::weak_ptr<WatchedService>& known = services_[name];
  watched.service = known.lock();
  if (watched.service == nullptr) {
    watched.service = std::make_shared<WatchedService>(world_, name);
    watched.service->Begin();
    known = watched.service;
  }
  std::weak_ptr<ServiceView>& known_view = views_[{name, SnapshotFilter::NameOf(filter)}];
  watched.view = known_view.lock();
  if (watched.view == nullptr) {
    watched.view = ServiceView::Make(watched.service, SnapshotFilter(filter, process_));
    known_view = watched.view;
  }
  return watched;
}

absl::StatusOr<Service> DiscoveryImpl::WatchService(std::string_view target,
                                                    const ServiceFilter& filter) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = SnapshotFilter::Validate(filter); !status.ok()) return status;
  CONCLAVE_ASSIGN_OR_RETURN(const std::string name, ParseServiceTarget(target));
  std::lock_guard lock(mutex_);
  return Service(WatchedLocked(name, filter).view);
}

absl::StatusOr<std::shared_ptr<ChannelHub>> DiscoveryImpl::Hub() {
  if (!options_status_.ok()) return options_status_;
  std::lock_guard lock(mutex_);
  if (hub_ == nullptr) {
    CONCLAVE_ASSIGN_OR_RETURN(
        hub_, ChannelHub::Create([client = world_->client](const std::string& line) {
          client.impl()->Log(LogLevel::kError, absl::StrCat("channel: ", line));
        }));
  }
  return hub_;
}

std::string DiscoveryImpl::WantFeed(const FeedKey& key, const ServiceFilter& filter,
                                    const xds::EndpointSet::Layout& layout) {
  std::lock_guard lock(mutex_);
  CONCLAVE_CHECK(hub_ != nullptr, "a feed needs the hub");
  FeedEntry& entry = feeds_[key];
  if (entry.channels++ > 0) return entry.cluster;
  entry.cluster = ClusterOf(key.service);
  // "%#" stands in no cluster's name that ClusterOf makes.
  if (!key.filter.empty() || !key.balancing.empty()) {
    absl::StrAppend(&entry.cluster, "%#", ++clusters_made_);
  }
  Watched watched = WatchedLocked(key.service, filter);
  entry.feed = std::make_shared<EndpointFeed>(
      Service(std::move(watched.view)), std::move(watched.service),
      EndpointFeed::Target{.deliver =
                               [hub = hub_, cluster = entry.cluster](xds::EndpointSet endpoints) {
                                 hub->SetEndpoints(cluster, std::move(endpoints));
                               },
                           .layout = layout},
      resolver_);
  return entry.cluster;
}

absl::StatusOr<std::unique_ptr<EndpointFeed>> DiscoveryImpl::MakeFeed(
    std::string_view service, std::function<void(xds::EndpointSet)> deliver) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = ValidateServiceName(service); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  Watched watched = WatchedLocked(std::string(service), {});
  return std::make_unique<EndpointFeed>(
      Service(std::move(watched.view)), std::move(watched.service),
      EndpointFeed::Target{.deliver = std::move(deliver), .layout = {}}, resolver_);
}

std::shared_ptr<EndpointFeed> DiscoveryImpl::FindFeed(const FeedKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = feeds_.find(key);
  return found == feeds_.end() ? nullptr : found->second.feed;
}

void DiscoveryImpl::ReleaseFeed(const FeedKey& key) {
  std::shared_ptr<EndpointFeed> last;  // destroyed without the lock: that waits for a callback
  std::lock_guard lock(mutex_);
  const auto found = feeds_.find(key);
  CONCLAVE_CHECK(found != feeds_.end(), key.service);
  if (--found->second.channels > 0) return;
  last = std::move(found->second.feed);
  hub_->ForgetEndpoints(found->second.cluster);
  feeds_.erase(found);
}

Discovery::Discovery(Client client, DiscoveryOptions options)
    : impl_(std::make_shared<DiscoveryImpl>(std::move(client), std::move(options))) {}

absl::StatusOr<Service> Discovery::Watch(std::string_view service,
                                         const ServiceFilter& filter) const {
  return impl_->WatchService(service, filter);
}

}  // namespace conclave
