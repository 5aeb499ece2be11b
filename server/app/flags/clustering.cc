// --help's group "Clustering": how members find each other, and changes of membership.
#include <type_traits>

#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetInitialCluster(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->initial_cluster, ParseInitialCluster(value));
  return absl::OkStatus();
}

template <auto DiscoverySettings::*kField>
absl::Status SetDiscovery(std::string_view value, Config* config) {
  auto& field = config->discovery.*kField;
  using Field = std::remove_reference_t<decltype(field)>;
  if constexpr (std::is_same_v<Field, bool>) {
    CONCLAVE_ASSIGN_OR_RETURN(field, ParseBool(value));
  } else if constexpr (std::is_same_v<Field, Duration>) {
    CONCLAVE_ASSIGN_OR_RETURN(field, ParseDuration(value, std::chrono::milliseconds(1)));
  } else {
    field = Field(value);
  }
  return absl::OkStatus();
}

absl::Status SetDiscoveryEndpoints(std::string_view value, Config* config) {
  config->discovery.endpoints =
      absl::StrSplit(std::string(value), absl::ByAnyChar(", "), absl::SkipEmpty());
  return absl::OkStatus();
}

// It becomes a part of keys.
absl::Status SetDiscoveryToken(std::string_view value, Config* config) {
  if (value.find('/') != std::string_view::npos) return InvalidValue("must not have a slash");
  config->discovery.token = std::string(value);
  return absl::OkStatus();
}

absl::Status SetInitialClusterState(std::string_view value, Config* config) {
  if (value != "new" && value != "existing") return InvalidValue("must be new or existing");
  config->initial_cluster_existing = value == "existing";
  return absl::OkStatus();
}

absl::Status SetPreVote(std::string_view value, Config* /*config*/) {
  CONCLAVE_ASSIGN_OR_RETURN(const bool on, ParseBool(value));
  if (!on) {
    return InvalidValue("must be true: elections here always ask before they disturb a leader");
  }
  return absl::OkStatus();
}

constexpr char kNameThem[] =
    "name the members with --initial-cluster, or let them find each other by --discovery-token";

const FlagEntry kFlags[] = {
    Works("initial-advertise-peer-urls", kList, "as --initial-cluster says",
          "addresses at which other members reach this one",
          SetUrls<&Config::initial_advertise_peer_urls>),
    Works("advertise-client-urls", kList, "as --listen-client-urls",
          "addresses at which clients reach this member", SetUrls<&Config::advertise_client_urls>),
    Works("initial-cluster", kText, "${name}=its own address",
          "all members of a new cluster: name=url,...", SetInitialCluster),
    Works("initial-cluster-state", kText, "new",
          "new: found a cluster; existing: join one that has added this member",
          SetInitialClusterState),
    Works("initial-cluster-token", kText, "etcd-cluster",
          "tells clusters of the same members apart", SetText<&Config::initial_cluster_token>),
    Works("pre-vote", kBool, "true", "always on", SetPreVote),
    Works("strict-reconfig-check", kBool, "true",
          "refuse changes of membership that too few members could carry",
          SetBool<&Config::strict_reconfig_check>),
    Works("max-learners", kNumber, "1", "most learners at a time",
          SetNumber<&Config::max_learners, 1, 64>),
    Works("force-new-cluster", kBool, "false",
          "all other members are lost: go on alone with this one's data",
          SetBool<&Config::force_new_cluster>),
    Works("initial-election-tick-advance", kBool, "true",
          "a member that starts waits for a leader no longer than a random part of its election "
          "time-out",
          SetBool<&Config::initial_election_tick_advance>),
    Refused("discovery", kText, kNameThem),
    Refused("discovery-srv", kText, kNameThem),
    Refused("discovery-srv-name", kText, kNameThem),
    Works("discovery-token", kText, "",
          "the founders of a new cluster find each other under this name, through another cluster",
          SetDiscoveryToken),
    Works("discovery-endpoints", kList, "", "addresses of that other cluster",
          SetDiscoveryEndpoints),
    Works("discovery-dial-timeout", kDuration, "2s", "how long one of its members may take",
          SetDiscovery<&DiscoverySettings::dial_timeout>),
    Works("discovery-request-timeout", kDuration, "5s", "how long a request to it may take",
          SetDiscovery<&DiscoverySettings::request_timeout>),
    Works("discovery-keepalive-time", kDuration, "2s",
          "pings to it; at most every 10 s, for servers punish more",
          SetDiscovery<&DiscoverySettings::keepalive_time>),
    Works("discovery-keepalive-timeout", kDuration, "6s",
          "a ping without answer ends the connection after",
          SetDiscovery<&DiscoverySettings::keepalive_timeout>),
    Works("discovery-insecure-transport", kBool, "true",
          "endpoints without a scheme are spoken to in plain text, if there are no files for TLS",
          SetDiscovery<&DiscoverySettings::insecure_transport>),
    Works("discovery-insecure-skip-tls-verify", kBool, "false", "believe whoever answers there",
          SetDiscovery<&DiscoverySettings::insecure_skip_tls_verify>),
    Works("discovery-cert", kText, "", "certificate to show there",
          SetDiscovery<&DiscoverySettings::cert_file>),
    Works("discovery-key", kText, "", "its private key",
          SetDiscovery<&DiscoverySettings::key_file>),
    Works("discovery-cacert", kText, "", "authorities that its certificates come from",
          SetDiscovery<&DiscoverySettings::ca_file>),
    Works("discovery-user", kText, "", "user there, or user:password",
          SetDiscovery<&DiscoverySettings::user>),
    Works("discovery-password", kText, "", "his password",
          SetDiscovery<&DiscoverySettings::password>),
    Ignored("discovery-fallback", kText, "there is no v2 proxy to fall back to"),
    Refused("discovery-proxy", kText, kNameThem),
};

}  // namespace

FlagGroup ClusteringFlags() { return {"Clustering", kFlags}; }

}  // namespace conclave::app
