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

absl::Status CompleteCluster(Config* config) {
  if (config->initial_cluster.empty()) {
    config->initial_cluster[config->name] = config->initial_advertise_peer_urls.empty()
                                                ? Reachable(config->listen_peer_urls)
                                                : config->initial_advertise_peer_urls;
  }
  const auto self = config->initial_cluster.find(config->name);
  if (self == config->initial_cluster.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--initial-cluster does not list this member: --name is \"", config->name,
                     "\"; add ", config->name, "=http://host:port to it"));
  }
  std::vector<Url>& advertised = config->initial_advertise_peer_urls;
  if (advertised.empty()) advertised = self->second;
  auto sorted = [](std::vector<Url> urls) {
    std::sort(urls.begin(), urls.end(),
              [](const Url& a, const Url& b) { return a.Text() < b.Text(); });
    return urls;
  };
  if (sorted(advertised) != sorted(self->second)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--initial-cluster has ", config->name, "=", Join(self->second),
        ", but --initial-advertise-peer-urls is ", Join(advertised), "; make them the same"));
  }
  std::map<std::string, std::string> owners;
  for (const auto& [name, urls] : config->initial_cluster) {
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

// A listener that speaks TLS has something to show, and what was set fits together.
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
  const auto check = [](const TlsConfig& tls, const std::vector<Url>& urls, const char* flags,
                        std::string_view what) {
    const bool has_files = !tls.files.cert_file.empty() && !tls.files.key_file.empty();
    if (tls.files.cert_file.empty() != tls.files.key_file.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(flags, " must both be present or both be absent"));
    }
    for (const Url& url : urls) {
      if (!url.is_tls() || has_files || tls.self_signed) continue;
      return absl::InvalidArgumentError(absl::StrCat("TLS key/cert (", flags,
                                                     ") must be provided for ", std::string(what),
                                                     " ", url.Text(), " with HTTPS scheme"));
    }
    return absl::OkStatus();
  };
  constexpr char kClientFlags[] = "--cert-file, --key-file";
  constexpr char kPeerFlags[] = "--peer-cert-file, --peer-key-file";
  CONCLAVE_RETURN_IF_ERROR(
      check(config->client_tls, config->listen_client_urls, kClientFlags, "client url"));
  CONCLAVE_RETURN_IF_ERROR(
      check(config->client_tls, config->listen_metrics_urls, kClientFlags, "metrics url"));
  CONCLAVE_RETURN_IF_ERROR(
      check(config->peer_tls, config->listen_peer_urls, kPeerFlags, "peer url"));
  for (const auto& [name, urls] : config->initial_cluster) {
    CONCLAVE_RETURN_IF_ERROR(check(config->peer_tls, urls, kPeerFlags, "peer url"));
  }
  for (const Url& url : config->listen_xds_urls) {
    if (url.scheme != "http") {
      return absl::InvalidArgumentError(
          absl::StrCat("--listen-xds-urls has ", url.Text(), "; it is served over http:// only"));
    }
  }
  const auto& clients = config->listen_client_urls;
  if (!config->listen_xds_urls.empty() &&
      std::all_of(clients.begin(), clients.end(), [](const Url& url) { return url.is_tls(); })) {
    return absl::InvalidArgumentError(
        "--listen-xds-urls reads the store through the client port without TLS: add an http:// or "
        "unix:// URL to --listen-client-urls, for example unix:///run/conclave.sock");
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
  CONCLAVE_RETURN_IF_ERROR(CompleteCluster(config));
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

}  // namespace conclave::app
