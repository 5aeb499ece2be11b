#include "conclave/discovery/channel.h"

#include <utility>

#include "conclave/base/status.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/discovery_impl.h"

namespace conclave {
namespace {

// What a channel needs while somebody owns it. The shared_ptr that Dial returns owns this and
// points to the channel inside.
class DialedChannel {
 public:
  DialedChannel(std::shared_ptr<DiscoveryImpl> discovery, std::shared_ptr<ChannelHub> hub,
                std::string service, ChannelHub::Opened opened)
      : discovery_(std::move(discovery)),
        hub_(std::move(hub)),
        service_(std::move(service)),
        opened_(std::move(opened)) {}

  ~DialedChannel() {
    hub_->Release(std::move(opened_));
    discovery_->ReleaseFeed(service_);
  }
  DialedChannel(const DialedChannel&) = delete;
  DialedChannel& operator=(const DialedChannel&) = delete;

  grpc::Channel* channel() const { return opened_.channel.get(); }

 private:
  const std::shared_ptr<DiscoveryImpl> discovery_;
  const std::shared_ptr<ChannelHub> hub_;
  const std::string service_;
  ChannelHub::Opened opened_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options) {
  if (credentials == nullptr) {
    return absl::InvalidArgumentError("Dial needs credentials, e.g. InsecureChannelCredentials()");
  }
  CONCLAVE_ASSIGN_OR_RETURN(std::string name, ParseServiceTarget(service));
  CONCLAVE_ASSIGN_OR_RETURN(std::shared_ptr<ChannelHub> hub, discovery.impl()->Hub());
  CONCLAVE_ASSIGN_OR_RETURN(ChannelHub::Opened opened, hub->Open(name, credentials, options));
  discovery.impl()->WantFeed(name);
  auto dialed = std::make_shared<DialedChannel>(discovery.impl(), std::move(hub), std::move(name),
                                                std::move(opened));
  return std::shared_ptr<grpc::Channel>(dialed, dialed->channel());
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options) {
  return Dial(Discovery(client), service, credentials, options);
}

}  // namespace conclave
