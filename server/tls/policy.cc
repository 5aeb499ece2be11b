#include "conclave/server/tls/policy.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <mutex>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/server/tls/material.h"
#include "conclave/server/tls/stream.h"

namespace conclave::tls {
namespace {

// What tells one content of a file from another without reading it.
using Stamp = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t, int64_t>;

Stamp StampOf(const std::string& path) {
  struct stat status {};
  if (path.empty() || stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev,          status.st_ino,
          status.st_size,         status.st_mtim.tv_sec,
          status.st_mtim.tv_nsec, status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec};
}

std::vector<Stamp> Stamps(const Options& options) {
  std::vector<Stamp> stamps;
  for (const std::string* path : {&options.cert_file, &options.key_file, &options.client_cert_file,
                                  &options.client_key_file, &options.ca_file, &options.crl_file}) {
    stamps.push_back(StampOf(*path));
  }
  return stamps;
}

absl::Status Check(const Options& options) {
  if (options.cert_file.empty() || options.key_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("KeyFile and CertFile must both be present[key: ", options.key_file,
                     ", cert: ", options.cert_file, "]"));
  }
  if (options.client_cert_file.empty() != options.client_key_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("ClientKeyFile and ClientCertFile must both be present or both absent: key: ",
                     options.client_key_file, ", cert: ", options.client_cert_file));
  }
  if (!options.allowed_names.empty() && !options.allowed_hostnames.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("AllowedCN and AllowedHostname are mutually exclusive (cn=",
                     absl::StrJoin(options.allowed_names, ","),
                     ", hostname=", absl::StrJoin(options.allowed_hostnames, ","), ")"));
  }
  return absl::OkStatus();
}

}  // namespace

struct Policy::State {
  mutable std::mutex mutex;
  std::shared_ptr<const Material> material;  // guarded by mutex, as what follows
  std::vector<Stamp> stamps;
};

Policy::Policy(Options options, Log log)
    : options_(std::move(options)), log_(std::move(log)), state_(std::make_unique<State>()) {}

Policy::~Policy() = default;

absl::StatusOr<std::unique_ptr<Policy>> Policy::Create(Options options, Log log) {
  CONCLAVE_RETURN_IF_ERROR(Check(options));
  std::unique_ptr<Policy> policy(new Policy(std::move(options), std::move(log)));
  policy->state_->stamps = Stamps(policy->options_);
  CONCLAVE_ASSIGN_OR_RETURN(policy->state_->material, Material::Load(policy->options_, 1));
  return policy;
}

uint64_t Policy::Refresh() {
  // Taken before the files are read: what changes meanwhile is seen the next time.
  std::vector<Stamp> stamps = Stamps(options_);
  std::unique_lock lock(state_->mutex);
  const uint64_t number = state_->material->number();
  if (stamps == state_->stamps) return number;
  state_->stamps = std::move(stamps);
  auto loaded = Material::Load(options_, number + 1);
  if (loaded.ok()) state_->material = *loaded;
  lock.unlock();
  if (!loaded.ok()) {
    log_({true,
          "cannot load changed TLS files; the old ones stay in use",
          {{"error", std::string(loaded.status().message())}}});
    return number;
  }
  log_({false, "loaded changed TLS files", {{"cert", options_.cert_file}}});
  return number + 1;
}

std::shared_ptr<const Material> Policy::current() const {
  std::lock_guard lock(state_->mutex);
  return state_->material;
}

std::unique_ptr<Stream> Policy::Accept(int fd, Speaks speaks) {
  Refresh();
  std::shared_ptr<const Material> material = current();
  SSL_CTX* const context = material->accepting();
  return std::unique_ptr<Stream>(
      new Stream(std::move(material), context, fd, /*accepting=*/true, speaks));
}

std::unique_ptr<Stream> Policy::Connect(int fd, const std::string& host) {
  Refresh();
  std::shared_ptr<const Material> material = current();
  SSL_CTX* const context = material->dialling();
  std::unique_ptr<Stream> stream(
      new Stream(std::move(material), context, fd, /*accepting=*/false, Speaks::kPeerStreams));
  if (host.empty()) return stream;
  X509_VERIFY_PARAM* const demands = SSL_get0_param(stream->ssl_);
  if (X509_VERIFY_PARAM_set1_ip_asc(demands, host.c_str()) == 1) return stream;
  X509_VERIFY_PARAM_set_hostflags(
      demands, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  CONCLAVE_CHECK(X509_VERIFY_PARAM_set1_host(demands, host.data(), host.size()) == 1);
  SSL_set_tlsext_host_name(stream->ssl_, host.c_str());
  return stream;
}

absl::Status Policy::JudgeClient(std::string_view leaf, std::string_view chain) {
  Refresh();
  const std::shared_ptr<const Material> material = current();
  STACK_OF(X509)* const shown = sk_X509_new_null();
  for (const std::string_view text : {leaf, chain}) {
    BIO* const bio = BIO_new_mem_buf(text.data(), static_cast<int>(text.size()));
    while (sk_X509_num(shown) <= 2 * kChainDepthMax) {
      X509* const certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
      if (certificate == nullptr) break;
      sk_X509_push(shown, certificate);
    }
    BIO_free(bio);
  }
  ERR_clear_error();
  absl::Status judged;
  if (sk_X509_num(shown) == 0) {
    if (!options_.ca_file.empty()) judged = absl::UnauthenticatedError("no certificate was shown");
  } else if (!material->Believes(shown, /*of_client=*/true)) {
    judged = absl::UnauthenticatedError("the certificate is not believed, or was revoked");
  } else if (!material->AllowsNames(sk_X509_value(shown, 0))) {
    judged = absl::UnauthenticatedError("the certificate has none of the names that are allowed");
  }
  sk_X509_pop_free(shown, X509_free);
  return judged;
}

bool Policy::StillAccepts(const Stream& stream) const {
  STACK_OF(X509)* chain = SSL_get0_verified_chain(stream.ssl_);
  if (chain == nullptr || sk_X509_num(chain) == 0) return true;
  return current()->Believes(chain, /*of_client=*/SSL_is_server(stream.ssl_) == 1);
}

}  // namespace conclave::tls
