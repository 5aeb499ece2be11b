#include "conclave/discovery/channel.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/discovery_impl.h"
#include "conclave/discovery/endpoint_feed.h"

namespace conclave {
namespace {

constexpr uint64_t kRingSizeMax = 8'388'608;  // gRPC's own
constexpr uint32_t kRetriesMax = 4;           // likewise: 5 attempts

class DialedChannel;

// The channels that Dial made and that are alive, for StatsOf.
class DialedChannels {
 public:
  static DialedChannels& Instance() {
    static DialedChannels& all = *new DialedChannels;
    return all;
  }
  void Add(const grpc::Channel* channel, std::weak_ptr<const DialedChannel> dialed) {
    std::lock_guard lock(mutex_);
    channels_[channel] = std::move(dialed);
  }
  void Remove(const grpc::Channel* channel) {
    std::lock_guard lock(mutex_);
    channels_.erase(channel);
  }
  std::shared_ptr<const DialedChannel> Find(const grpc::Channel* channel) {
    std::lock_guard lock(mutex_);
    const auto found = channels_.find(channel);
    return found == channels_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;
  std::map<const grpc::Channel*, std::weak_ptr<const DialedChannel>> channels_;
};

// What a channel needs while somebody owns it. The shared_ptr that Dial returns owns this and
// points to the channel inside.
class DialedChannel {
 public:
  DialedChannel(std::shared_ptr<DiscoveryImpl> discovery, std::shared_ptr<ChannelHub> hub,
                DiscoveryImpl::FeedKey key, ChannelHub::Opened opened)
      : discovery_(std::move(discovery)),
        hub_(std::move(hub)),
        key_(std::move(key)),
        opened_(std::move(opened)) {}

  ~DialedChannel() {
    DialedChannels::Instance().Remove(channel());
    hub_->Release(std::move(opened_));
    discovery_->ReleaseFeed(key_);
  }
  DialedChannel(const DialedChannel&) = delete;
  DialedChannel& operator=(const DialedChannel&) = delete;

  grpc::Channel* channel() const { return opened_.channel.get(); }

  DialStats Stats() const {
    DialStats stats{.service = key_.service};
    if (const auto feed = discovery_->FindFeed(key_)) {
      const EndpointFeed::Stats told = feed->stats();
      stats.endpoints = told.endpoints;
      stats.left_out = told.left_out;
      stats.updates = told.updates;
      stats.stale_since = feed->service().snapshot()->stale_since();
    }
    const xds::AdsServer::ListenerStats ads = hub_->StatsOf(opened_.listener);
    stats.responses = ads.responses;
    stats.acks = ads.acks;
    stats.nacks = ads.nacks;
    stats.last_error = ads.last_error;
    stats.connected = ads.streams > 0;
    stats.state = channel()->GetState(/*try_to_connect=*/false);
    return stats;
  }

 private:
  const std::shared_ptr<DiscoveryImpl> discovery_;
  const std::shared_ptr<ChannelHub> hub_;
  const DiscoveryImpl::FeedKey key_;
  ChannelHub::Opened opened_;
};

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("DialOptions: ", parts...));
}

// The ring of gRPC 1.51 casts a closure to a class that it is not of, and crashes with
// the first update.
bool GrpcHasSoundRing() {
  const std::string version = grpc::Version();  // "1.51.1"
  const size_t dot = version.find('.');
  int major = 0;
  int minor = 0;
  const bool parsed =
      dot != std::string::npos && absl::SimpleAtoi(version.substr(0, dot), &major) &&
      absl::SimpleAtoi(version.substr(dot + 1, version.find('.', dot + 1) - dot - 1), &minor);
  return parsed && (major > 1 || minor >= 53);
}

absl::Status Validate(const DialRingHash& ring) {
  const auto allowed = [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) ||
           absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (ring.header.empty() || !std::all_of(ring.header.begin(), ring.header.end(), allowed)) {
    return Wrong("ring_hash.header \"", ring.header, "\" is no header's name in lower case");
  }
  if (ring.header.ends_with("-bin")) {
    return Wrong("ring_hash.header \"", ring.header,
                 "\" is a binary one, which gRPC does not hash");
  }
  if (ring.ring_size_min < 1 || ring.ring_size_min > kRingSizeMax) {
    return Wrong("ring_hash.ring_size_min is not in 1..", kRingSizeMax);
  }
  if (!GrpcHasSoundRing()) {
    return absl::UnimplementedError(
        absl::StrCat("DialOptions: ring_hash needs gRPC 1.53 or later, this is ", grpc::Version(),
                     ", whose ring ends the process; DialPicking has a hash ring of its own"));
  }
  return absl::OkStatus();
}

absl::Status Validate(const DialOutlier& outlier) {
  if (outlier.failure_percent == 0 && outlier.stdev_factor == 0) {
    return Wrong("outlier ejects nobody: set failure_percent or stdev_factor");
  }
  if (outlier.failure_percent >= 100) {
    return Wrong("outlier.failure_percent must be below 100: more than that share must fail");
  }
  if (outlier.max_ejected_percent > 100) return Wrong("outlier.max_ejected_percent is above 100");
  if (outlier.instances_min < 1 || outlier.calls_min < 1) {
    return Wrong("outlier.instances_min and calls_min must be at least 1");
  }
  for (const absl::Duration time :
       {outlier.interval, outlier.base_ejection, outlier.max_ejection}) {
    if (time < absl::Milliseconds(1) || time > absl::Hours(24 * 365)) {
      return Wrong("the times of outlier must be positive and at most a year");
    }
  }
  if (outlier.max_ejection < outlier.base_ejection) {
    return Wrong("outlier.max_ejection is less than base_ejection");
  }
  return absl::OkStatus();
}

absl::Status Validate(const DialOptions& options) {
  CONCLAVE_RETURN_IF_ERROR(SnapshotFilter::ValidateForCalls(options.filter, options.prefer_zone));
  if (options.retries_max > kRetriesMax) {
    return Wrong("retries_max is above ", kRetriesMax, ", which is all that gRPC allows");
  }
  if (options.ring_hash.has_value()) CONCLAVE_RETURN_IF_ERROR(Validate(*options.ring_hash));
  if (options.outlier.has_value()) return Validate(*options.outlier);
  return absl::OkStatus();
}

xds::EndpointSet::Layout LayoutOf(const DialOptions& options) {
  using Weights = xds::EndpointSet::Layout::Weights;
  xds::EndpointSet::Layout layout{.first_zone = options.prefer_zone};
  if (options.weighted) {
    layout.weights = options.ring_hash.has_value() ? Weights::kByEndpoint : Weights::kByLocality;
  }
  return layout;
}

// Equal for options whose channels may share a cluster; empty for the default ones.
std::string BalancingName(const DialOptions& options) {
  std::string name;
  if (!options.prefer_zone.empty()) absl::StrAppend(&name, "zone=", options.prefer_zone, "\n");
  if (options.weighted) absl::StrAppend(&name, "weighted\n");
  if (options.ring_hash.has_value()) {
    absl::StrAppend(&name, "ring=", options.ring_hash->header, ",",
                    options.ring_hash->ring_size_min, "\n");
  }
  if (options.outlier.has_value()) {
    const DialOutlier& outlier = *options.outlier;
    for (const absl::Duration time :
         {outlier.interval, outlier.base_ejection, outlier.max_ejection}) {
      absl::StrAppend(&name, absl::ToInt64Nanoseconds(time), ",");
    }
    absl::StrAppend(&name, outlier.max_ejected_percent, ",", outlier.failure_percent, ",",
                    outlier.stdev_factor, ",", outlier.instances_min, ",", outlier.calls_min);
  }
  return name;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options) {
  if (credentials == nullptr) {
    return absl::InvalidArgumentError("Dial needs credentials, e.g. InsecureChannelCredentials()");
  }
  CONCLAVE_RETURN_IF_ERROR(Validate(options));
  CONCLAVE_ASSIGN_OR_RETURN(std::string name, ParseServiceTarget(service));
  CONCLAVE_ASSIGN_OR_RETURN(std::shared_ptr<ChannelHub> hub, discovery.impl()->Hub());
  DiscoveryImpl::FeedKey key{
      .service = name,
      .filter = options.filter == ServiceFilter{} ? "" : SnapshotFilter::NameOf(options.filter),
      .balancing = BalancingName(options)};
  const std::string cluster = discovery.impl()->WantFeed(key, options.filter, LayoutOf(options));
  absl::StatusOr<ChannelHub::Opened> opened = hub->Open(name, cluster, credentials, options);
  if (!opened.ok()) {
    discovery.impl()->ReleaseFeed(key);
    return opened.status();
  }
  auto dialed = std::make_shared<DialedChannel>(discovery.impl(), std::move(hub), std::move(key),
                                                *std::move(opened));
  DialedChannels::Instance().Add(dialed->channel(), dialed);
  return std::shared_ptr<grpc::Channel>(dialed, dialed->channel());
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options) {
  return Dial(Discovery(client), service, credentials, options);
}

absl::StatusOr<DialStats> StatsOf(const std::shared_ptr<grpc::Channel>& channel) {
  const auto dialed = DialedChannels::Instance().Find(channel.get());
  if (dialed == nullptr) return absl::NotFoundError("the channel was not made by Dial");
  return dialed->Stats();
}

}  // namespace conclave
