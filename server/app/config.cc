#include "conclave/server/app/config.h"

#include <sys/un.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/base/status.h"

namespace conclave::app {
namespace {

absl::Status BadUrl(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text),
                                                 "\" is not a URL to use here: ", std::string(why),
                                                 " (for example http://127.0.0.1:2379)"));
}

std::string Join(const std::vector<Url>& urls) {
  std::string text;
  for (const Url& url : urls) absl::StrAppend(&text, text.empty() ? "" : ",", url.Text());
  return text;
}

// What others can reach, of what we listen on: a wildcard address is this machine, called
// localhost.
std::vector<Url> Reachable(const std::vector<Url>& listen) {
  std::vector<Url> urls = listen;
  for (Url& url : urls) {
    if (url.is_unix()) continue;
    if (url.host == "0.0.0.0" || url.host == "::" || url.host.empty()) url.host = "localhost";
  }
  return urls;
}

absl::Status CheckDiscovery(const Config& config) {
  const DiscoverySettings& discovery = config.discovery;
  if (discovery.token.empty() && discovery.endpoints.empty()) return absl::OkStatus();
  if (discovery.token.empty() || discovery.endpoints.empty()) {
    return absl::InvalidArgumentError(
        "--discovery-token and --discovery-endpoints belong together: set both");
  }
  if (!config.initial_cluster.empty()) {
    return absl::InvalidArgumentError(
        "multiple discovery or bootstrap flags are set: choose one of --initial-cluster and "
        "--discovery-endpoints");
  }
  if (config.initial_cluster_existing) {
    return absl::InvalidArgumentError(
        "--discovery-token founds a new cluster; for one that exists, name its members with "
        "--initial-cluster");
  }
  if (discovery.cert_file.empty() != discovery.key_file.empty()) {
    return absl::InvalidArgumentError(
        "--discovery-cert and --discovery-key belong together: set both");
  }
  return absl::OkStatus();
}

void CompleteCluster(Config* config) {
  std::vector<Url>& advertised = config->initial_advertise_peer_urls;
  if (config->initial_cluster.empty()) {
    config->initial_cluster[config->name] =
        advertised.empty() ? Reachable(config->listen_peer_urls) : advertised;
  }
  const auto self = config->initial_cluster.find(config->name);
  if (!advertised.empty()) return;
  advertised =
      self != config->initial_cluster.end() ? self->second : Reachable(config->listen_peer_urls);
}

constexpr char kClientFiles[] = "--cert-file, --key-file";
constexpr char kPeerFiles[] = "--peer-cert-file, --peer-key-file";

// Listeners that speak TLS have something to show.
absl::Status CheckFiles(const TlsConfig& tls, const std::vector<Url>& urls, const char* flags,
                        std::string_view what, std::string_view kind = "") {
  const bool has_files = !tls.files.cert_file.empty() && !tls.files.key_file.empty();
  if (tls.files.cert_file.empty() != tls.files.key_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags, " must both be present or both be absent"));
  }
  for (const Url& url : urls) {
    if (!url.is_tls() || has_files || tls.self_signed) continue;
    return absl::InvalidArgumentError(absl::StrCat(std::string(kind), "TLS key/cert (", flags,
                                                   ") must be provided for ", std::string(what),
                                                   " ", url.Text(), " with HTTPS scheme"));
  }
  return absl::OkStatus();
}

// What was set of TLS fits together.
absl::Status CompleteTls(Config* config) {
  if (config->tls_max_version != tls::Version::kAny &&
      config->tls_min_version > config->tls_max_version) {
    return absl::InvalidArgumentError(
        "min version (TLS1.3) is greater than max version (TLS1.2); see --tls-min-version and "
        "--tls-max-version");
  }
  if (config->tls_min_version == tls::Version::kTls13 && !config->cipher_suites.empty()) {
    return absl::InvalidArgumentError(
        "cipher suites cannot be configured when only TLS1.3 is enabled; leave out "
        "--cipher-suites");
  }
  if (config->self_signed_years < 1) {
    return absl::InvalidArgumentError("--self-signed-cert-validity must be at least 1 (years)");
  }
  CONCLAVE_RETURN_IF_ERROR(
      CheckFiles(config->client_tls, config->listen_client_urls, kClientFiles, "client url"));
  CONCLAVE_RETURN_IF_ERROR(CheckFiles(config->client_tls, config->listen_metrics_urls, kClientFiles,
                                      "metrics secure url", "client "));
  CONCLAVE_RETURN_IF_ERROR(
      CheckFiles(config->peer_tls, config->listen_peer_urls, kPeerFiles, "peer url"));
  CONCLAVE_RETURN_IF_ERROR(
      CheckFiles(config->client_tls, config->listen_xds_urls, kClientFiles, "xds url"));
  for (const Url& url : config->listen_xds_urls) {
    if (url.is_unix()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--listen-xds-urls has ", url.Text(), "; it is served at http:// and https:// only"));
    }
  }
  for (TlsConfig* tls : {&config->client_tls, &config->peer_tls}) {
    tls->files.cipher_suites = config->cipher_suites;
    tls->files.version_min = config->tls_min_version;
    tls->files.version_max = config->tls_max_version;
  }
  return absl::OkStatus();
}

}  // namespace

std::string Url::HostPort() const {
  if (is_unix()) return host;
  const bool is_v6 = host.find(':') != std::string::npos;
  return absl::StrCat(is_v6 ? "[" : "", host, is_v6 ? "]" : "", ":", port);
}

std::string Url::Text() const { return absl::StrCat(scheme, "://", HostPort()); }

namespace {

// "unix:///run/x.sock" is /run/x.sock, and "unix://localhost:2379" the file localhost:2379 in the
// working directory, as etcd has it.
absl::StatusOr<Url> ParseUnixUrl(std::string_view text, std::string_view scheme,
                                 std::string_view path) {
  if (path.empty()) return BadUrl(text, "it has no path");
  if (path.size() >= sizeof(sockaddr_un::sun_path)) return BadUrl(text, "its path is too long");
  if (path.find_first_of(",?#") != std::string_view::npos) {
    return BadUrl(text, "its path has a character that does not belong there");
  }
  return Url{std::string(path), 0, std::string(scheme)};
}

}  // namespace

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  const size_t separator = text.find("://");
  if (separator == std::string_view::npos) return BadUrl(text, "it has no scheme");
  const std::string_view scheme = text.substr(0, separator);
  std::string_view rest = text.substr(separator + 3);
  if (scheme == "unix" || scheme == "unixs") return ParseUnixUrl(text, scheme, rest);
  if (scheme != "http" && scheme != "https") {
    return BadUrl(text, "its scheme is not http, https, unix or unixs");
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find_first_of("/?#@") != std::string_view::npos) {
    return BadUrl(text, "it has more than host and port");
  }
  const size_t colon = rest.rfind(':');
  const bool bracketed = rest.starts_with('[');
  if (colon == std::string_view::npos || (bracketed && rest.find(']') != colon - 1)) {
    return BadUrl(text, "it has no port");
  }
  std::string_view host = rest.substr(0, colon);
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (!bracketed && host.find(':') != std::string_view::npos) {
    return BadUrl(text, "an IPv6 address stands in brackets");
  }
  uint32_t port = 0;
  if (!absl::SimpleAtoi(std::string(rest.substr(colon + 1)), &port) || port > 65535) {
    return BadUrl(text, "its port is not a number up to 65535");
  }
  if (host.empty()) return BadUrl(text, "it has no host");
  return Url{std::string(host), static_cast<uint16_t>(port), std::string(scheme)};
}

absl::StatusOr<std::vector<Url>> ParseUrls(std::string_view text) {
  std::vector<Url> urls;
  for (const auto& part : absl::StrSplit(std::string(text), ',')) {
    const std::string one(absl::StripAsciiWhitespace(part));
    CONCLAVE_ASSIGN_OR_RETURN(Url url, ParseUrl(one));
    urls.push_back(std::move(url));
  }
  return urls;
}

absl::StatusOr<InitialClusterMap> ParseInitialCluster(std::string_view text) {
  InitialClusterMap members;
  for (const auto& part : absl::StrSplit(std::string(text), ',')) {
    const std::string member(absl::StripAsciiWhitespace(part));
    const size_t equals = member.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", member, "\" must be name=http://host:port (members separated by commas)"));
    }
    CONCLAVE_ASSIGN_OR_RETURN(Url url, ParseUrl(std::string_view(member).substr(equals + 1)));
    members[member.substr(0, equals)].push_back(std::move(url));
  }
  return members;
}

absl::Status Complete(Config* config) {
  if (config->name.empty()) return absl::InvalidArgumentError("--name must not be empty");
  if (config->data_dir.empty()) config->data_dir = config->name + ".conclave";
  if (config->listen_client_urls.empty()) config->listen_client_urls = {{"127.0.0.1", 2379}};
  if (config->listen_peer_urls.empty()) config->listen_peer_urls = {{"127.0.0.1", 2380}};
  for (const Url& url : config->listen_client_http_urls) {
    const auto& grpc = config->listen_client_urls;
    if (url.port != 0 && std::find(grpc.begin(), grpc.end(), url) != grpc.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--listen-client-http-urls and --listen-client-urls must not share ", url.Text()));
    }
  }
  if (config->advertise_client_urls.empty()) {
    config->advertise_client_urls = Reachable(config->listen_client_urls);
  }
  CONCLAVE_RETURN_IF_ERROR(CheckDiscovery(*config));
  CompleteCluster(config);
  CONCLAVE_RETURN_IF_ERROR(CompleteTls(config));
  if (config->election_timeout < 5 * config->heartbeat_interval) {
    return absl::InvalidArgumentError(
        absl::StrCat("--election-timeout[", config->election_timeout / std::chrono::milliseconds(1),
                     "ms] should be at least as 5 times as --heartbeat-interval[",
                     config->heartbeat_interval / std::chrono::milliseconds(1), "ms]"));
  }
  if (config->election_timeout > std::chrono::seconds(50)) {
    return absl::InvalidArgumentError("--election-timeout must not be above 50000 (milliseconds)");
  }
  return absl::OkStatus();
}

absl::Status CheckInitialCluster(const Config& config) {
  const auto self = config.initial_cluster.find(config.name);
  if (self == config.initial_cluster.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--initial-cluster does not list this member: --name is \"", config.name,
                     "\"; add ", config.name, "=http://host:port to it"));
  }
  const auto sorted = [](std::vector<Url> urls) {
    std::sort(urls.begin(), urls.end(),
              [](const Url& a, const Url& b) { return a.Text() < b.Text(); });
    return urls;
  };
  const std::vector<Url>& advertised = config.initial_advertise_peer_urls;
  if (sorted(advertised) != sorted(self->second)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--initial-cluster has ", config.name, "=", Join(self->second),
        ", but --initial-advertise-peer-urls is ", Join(advertised), "; make them the same"));
  }
  std::map<std::string, std::string> owners;
  for (const auto& [name, urls] : config.initial_cluster) {
    CONCLAVE_RETURN_IF_ERROR(CheckFiles(config.peer_tls, urls, kPeerFiles, "peer url"));
    for (const Url& url : urls) {
      const auto [other, is_new] = owners.emplace(url.Text(), name);
      if (!is_new) {
        return absl::InvalidArgumentError(absl::StrCat("--initial-cluster gives ", url.Text(),
                                                       " to both ", other->second, " and ", name,
                                                       "; every member needs its own"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace conclave::app
