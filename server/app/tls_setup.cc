#include "conclave/server/app/tls_setup.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/status.h"
#include "conclave/server/tls/self_signed.h"

namespace conclave::app {
namespace {

bool AnyTls(const std::vector<Url>& urls) {
  return std::any_of(urls.begin(), urls.end(), [](const Url& url) { return url.is_tls(); });
}

// What a certificate must be made for, so that those who dial these URLs believe it.
std::vector<std::string> Hosts(const std::vector<Url>& urls) {
  std::vector<std::string> hosts;
  for (const Url& url : urls) {
    const std::string host = url.is_unix() ? "localhost" : url.host;
    if (std::find(hosts.begin(), hosts.end(), host) == hosts.end()) hosts.push_back(host);
  }
  return hosts;
}

void WarnOfPlain(const std::vector<Url>& urls, const tls::Options& files, Log* log) {
  for (const Url& url : urls) {
    if (url.is_tls()) continue;
    if (!files.empty()) {
      log->Warn("scheme is HTTP while key and cert files are present; ignoring key and cert files",
                {{"url", url.Text()}});
    }
    if (files.client_cert_auth) {
      log->Warn(
          "scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for this "
          "URL",
          {{"url", url.Text()}});
    }
  }
}

struct Kind {
  const char* name;       // in log lines
  const char* directory;  // of a certificate of our own, under the data directory
};

absl::StatusOr<std::unique_ptr<tls::Policy>> SetUp(const Kind& kind, const Config& config,
                                                   TlsConfig tls, const std::vector<Url>& urls,
                                                   const std::shared_ptr<Log>& log) {
  if (tls.self_signed && !tls.files.empty()) {
    log->Warn(std::string("ignoring ") + kind.name + " auto TLS since certs given");
  } else if (tls.self_signed && AnyTls(urls)) {
    CONCLAVE_ASSIGN_OR_RETURN(const tls::SelfSigned own,
                              tls::KeepSelfSigned(config.data_dir + "/fixtures/" + kind.directory,
                                                  Hosts(urls), config.self_signed_years));
    log->Info(own.is_new ? "created a self-signed certificate" : "using a self-signed certificate",
              {{"for", kind.name}, {"cert", own.cert_file}});
    tls.files.cert_file = own.cert_file;
    tls.files.key_file = own.key_file;
    tls.files.trust_any_server = true;
  }
  WarnOfPlain(urls, tls.files, log.get());
  if (tls.files.empty()) return nullptr;
  return tls::Policy::Create(std::move(tls.files), [log](tls::Policy::Note note) {
    if (note.is_warning) {
      log->Warn(note.message, std::move(note.fields));
    } else {
      log->Info(note.message, std::move(note.fields));
    }
  });
}

}  // namespace

absl::StatusOr<TlsPolicies> SetUpTls(const Config& config, std::shared_ptr<Log> log) {
  std::vector<Url> client_urls = config.listen_client_urls;
  for (const auto* urls : {&config.listen_metrics_urls, &config.listen_xds_urls}) {
    client_urls.insert(client_urls.end(), urls->begin(), urls->end());
  }
  TlsPolicies policies;
  CONCLAVE_ASSIGN_OR_RETURN(
      policies.client, SetUp({"client", "client"}, config, config.client_tls, client_urls, log));
  CONCLAVE_ASSIGN_OR_RETURN(policies.peer, SetUp({"peer", "peer"}, config, config.peer_tls,
                                                 config.listen_peer_urls, log));
  return policies;
}

}  // namespace conclave::app
