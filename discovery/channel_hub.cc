#include "conclave/discovery/channel_hub.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "conclave/base/status.h"
#include "conclave/discovery/channel.h"

namespace conclave {
namespace {

int Milliseconds(absl::Duration duration) {
  constexpr int64_t kMax = 0x7fffffff;  // "never" for gRPC
  const int64_t ms = absl::ToInt64Milliseconds(duration);
  return static_cast<int>(std::min(std::max<int64_t>(ms, 1), kMax));
}

// What a channel needs to know to ask the hub's server.
std::string Bootstrap(const std::string& socket_path) {
  const nlohmann::json bootstrap = {{"xds_servers",
                                     {{{"server_uri", "unix:" + socket_path},
                                       {"channel_creds", {{{"type", "insecure"}}}},
                                       {"server_features", {"xds_v3"}}}}},
                                    {"node", {{"id", absl::StrCat("conclave-", getpid())}}}};
  return bootstrap.dump();
}

constexpr absl::Duration kLazyIdleTimeout = absl::Seconds(10);

grpc::ChannelArguments Arguments(const DialOptions& options, std::string_view service,
                                 const std::string& socket_path) {
  grpc::ChannelArguments args = ConnectionArguments(options, service);
  args.SetString(GRPC_ARG_TEST_ONLY_DO_NOT_USE_IN_PROD_XDS_BOOTSTRAP_CONFIG,
                 Bootstrap(socket_path));
  if (options.lazy) args.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, Milliseconds(kLazyIdleTimeout));
  return args;
}

xds::CallPolicy PolicyOf(const DialOptions& options) {
  xds::CallPolicy policy{.retries_max = options.retries_max};
  if (options.ring_hash.has_value()) {
    policy.hash_header = options.ring_hash->header;
    policy.ring_size_min = options.ring_hash->ring_size_min;
  }
  if (options.outlier.has_value()) {
    const DialOutlier& outlier = *options.outlier;
    policy.outlier =
        xds::OutlierPolicy{.interval = absl::ToChronoNanoseconds(outlier.interval),
                           .base_ejection = absl::ToChronoNanoseconds(outlier.base_ejection),
                           .max_ejection = absl::ToChronoNanoseconds(outlier.max_ejection),
                           .max_ejected_percent = outlier.max_ejected_percent,
                           .failure_percent = outlier.failure_percent,
                           .stdev_factor = outlier.stdev_factor,
                           .hosts_min = outlier.instances_min,
                           .calls_min = outlier.calls_min};
  }
  return policy;
}

}  // namespace

grpc::ChannelArguments ConnectionArguments(const DialOptions& options, std::string_view service) {
  grpc::ChannelArguments args = options.args;
  args.SetString(GRPC_ARG_DEFAULT_AUTHORITY,
                 options.authority.empty() ? AuthorityOf(service) : options.authority);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
              Milliseconds(options.reconnect_backoff_initial));
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Milliseconds(options.reconnect_backoff_max));
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Milliseconds(options.connect_timeout));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  return args;
}

std::string AuthorityOf(std::string_view service) {
  std::string authority(service);
  for (char& c : authority) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_') c = '-';
  }
  return authority;
}

std::string ClusterOf(std::string_view service) {
  std::string cluster;
  for (const char c : service) {
    if (xds::IsNameByte(c) && c != '%') {
      cluster.push_back(c);
    } else {
      absl::StrAppendFormat(&cluster, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return cluster;
}

absl::StatusOr<std::shared_ptr<ChannelHub>> ChannelHub::Create(LogLine log) {
  CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<PrivateDirectory> directory,
                            PrivateDirectory::Create());
  CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<xds::AdsServer> server,
                            xds::AdsServer::Start({.address = "unix:" + directory->SocketPath(),
                                                   .credentials = nullptr,
                                                   .catalog = {},
                                                   .on_interest = nullptr,
                                                   .on_trouble = std::move(log)}));
  return std::shared_ptr<ChannelHub>(new ChannelHub(std::move(directory), std::move(server)));
}

ChannelHub::ChannelHub(std::unique_ptr<PrivateDirectory> directory,
                       std::unique_ptr<xds::AdsServer> server)
    : directory_(std::move(directory)), server_(std::move(server)) {}

// The service's own name if it can stand in a target and is free; else one like it. Only gRPC sees
// it: the cluster, which stands in error messages, has the service's true name.
std::string ChannelHub::ChooseListener(std::string_view service) {
  const std::string plain = AuthorityOf(service);
  if (plain == service && listeners_.insert(plain).second) return plain;
  for (uint64_t n = 1;; ++n) {
    const std::string candidate = absl::StrCat(plain, "-", n);
    if (listeners_.insert(candidate).second) return candidate;
  }
}

absl::StatusOr<ChannelHub::Opened> ChannelHub::Open(
    std::string_view service, const std::string& cluster,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options) {
  if (service.empty()) return absl::InvalidArgumentError("the service's name is empty");
  Opened opened;
  {
    std::lock_guard lock(mutex_);
    Sweep();
    opened.listener = ChooseListener(service);
  }
  server_->Declare(opened.listener, cluster, PolicyOf(options));
  opened.channel = grpc::CreateCustomChannel("xds:///" + opened.listener, credentials,
                                             Arguments(options, service, directory_->SocketPath()));
  if (!options.lazy) keeper_.Keep(opened.channel);
  return opened;
}

void ChannelHub::Release(Opened opened) {
  const std::weak_ptr<grpc::Channel> channel = opened.channel;
  opened.channel.reset();  // normally its end
  std::lock_guard lock(mutex_);
  released_.emplace(std::move(opened.listener), channel);
  Sweep();
}

void ChannelHub::Sweep() {
  std::erase_if(released_, [this](const auto& entry) {
    if (!entry.second.expired()) return false;
    server_->Withdraw(entry.first);
    listeners_.erase(entry.first);
    return true;
  });
}

void ChannelHub::SetEndpoints(const std::string& cluster, xds::EndpointSet endpoints) {
  server_->SetEndpoints(cluster, std::move(endpoints));
}

void ChannelHub::ForgetEndpoints(const std::string& cluster) { server_->ForgetEndpoints(cluster); }

}  // namespace conclave
