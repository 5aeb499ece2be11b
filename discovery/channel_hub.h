// ChannelHub: makes gRPC channels whose backends are whatever SetEndpoints says.
//
// The private half of Dial(): an ADS server on a unix socket that only this user can reach, and a
// keeper that polls the channels. The channels are gRPC's own, with the target `xds:///<service>`.
//
//   SetEndpoints -> AdsServer -> (unix socket, xDS) -> gRPC's xds resolver -> round robin ->
//   connections
//
// Thread-safe. Two threads, shared by all channels of a hub. A channel may outlive the hub: it then
// keeps the endpoints that it was told last.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/discovery/channel_keeper.h"
#include "conclave/discovery/private_directory.h"
#include "conclave/discovery/xds/ads_server.h"
#include "conclave/discovery/xds/endpoint_set.h"

namespace grpc {
class Channel;
class ChannelArguments;
class ChannelCredentials;
}  // namespace grpc

namespace conclave {

struct DialOptions;

class ChannelHub {
 public:
  using LogLine = std::function<void(const std::string& line)>;
  // `log` is called on the server's thread, with what is wrong.
  [[nodiscard]] static absl::StatusOr<std::shared_ptr<ChannelHub>> Create(LogLine log);

  // What Open gives: the channel, and the name by which the hub knows it.
  struct Opened {
    std::shared_ptr<grpc::Channel> channel;
    std::string listener;
  };
  // `service` may be any text but the empty one. Channels of one cluster share its endpoints and
  // must have the same options of balancing.
  [[nodiscard]] absl::StatusOr<Opened> Open(
      std::string_view service, const std::string& cluster,
      const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options);
  // Gives the channel back. A call that still holds it keeps it working to the call's end.
  void Release(Opened opened);

  void SetEndpoints(const std::string& cluster, xds::EndpointSet endpoints);
  // Nothing is known of the cluster any more; its channels keep what they have.
  void ForgetEndpoints(const std::string& cluster);

  xds::AdsServer::Stats stats() const { return server_->stats(); }
  xds::AdsServer::ListenerStats StatsOf(const std::string& listener) const {
    return server_->StatsOf(listener);
  }

 private:
  ChannelHub(std::unique_ptr<PrivateDirectory> directory, std::unique_ptr<xds::AdsServer> server);
  // With mutex_ held.
  std::string ChooseListener(std::string_view service);
  // Takes back the names of released channels that have ended. With mutex_ held.
  void Sweep();

  const std::unique_ptr<PrivateDirectory> directory_;
  const std::unique_ptr<xds::AdsServer> server_;
  ChannelKeeper keeper_;
  std::mutex mutex_;
  std::set<std::string, std::less<>> listeners_;                  // in use; guarded by mutex_
  std::map<std::string, std::weak_ptr<grpc::Channel>> released_;  // guarded by mutex_
};

// The service's name where gRPC takes only a host name (the :authority header, the target):
// letters, digits and "._-" stay, everything else becomes "-".
std::string AuthorityOf(std::string_view service);

// What the options say of connections: authority, backoff, keepalive.
grpc::ChannelArguments ConnectionArguments(const DialOptions& options, std::string_view service);

// The service's name where gRPC shows it: as it is, but for "%", quotes, backslashes, control
// characters and non-ASCII bytes, which become %XX. (gRPC 1.51 pastes a cluster's name into JSON
// unquoted, and a quote in it makes it recurse until its stack ends.)
std::string ClusterOf(std::string_view service);

}  // namespace conclave
