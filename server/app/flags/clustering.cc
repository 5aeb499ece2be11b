// --help's group "Clustering": how members find each other, and changes of membership.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetInitialCluster(std::string_view value, Config* config) {
  config->initial_cluster.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string text(absl::StripAsciiWhitespace(part));
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidValue(absl::StrCat(
          "\"", text, "\" must be name=http://host:port (members separated by commas)"));
    }
    CONCLAVE_ASSIGN_OR_RETURN(Url url, ParseUrl(text.substr(equals + 1)));
    config->initial_cluster[text.substr(0, equals)].push_back(std::move(url));
  }
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

constexpr char kNameThem[] = "name the members with --initial-cluster";
constexpr char kNoDiscovery[] = "it tunes --discovery-token";

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
    Ignored("initial-election-tick-advance", kBool, "a member alone elects itself at once"),
    Refused("discovery", kText, kNameThem),
    Refused("discovery-srv", kText, kNameThem),
    Refused("discovery-srv-name", kText, kNameThem),
    Ignored("discovery-dial-timeout", kDuration, kNoDiscovery),
    Ignored("discovery-request-timeout", kDuration, kNoDiscovery),
    Ignored("discovery-keepalive-time", kDuration, kNoDiscovery),
    Ignored("discovery-keepalive-timeout", kDuration, kNoDiscovery),
    Refused("discovery-token", kText, kNameThem),
    Refused("discovery-endpoints", kText, kNameThem),
    Ignored("discovery-fallback", kText, "there is no v2 proxy to fall back to"),
    Refused("discovery-proxy", kText, kNameThem),
};

}  // namespace

FlagGroup ClusteringFlags() { return {"Clustering", kFlags}; }

}  // namespace conclave::app
