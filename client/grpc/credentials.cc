#include "conclave/client/grpc/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

namespace conclave {
namespace {

// How often the files are looked at.
constexpr unsigned kRefreshSeconds = 2;

}  // namespace

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  namespace experimental = grpc::experimental;
  experimental::TlsChannelCredentialsOptions options;
  const bool has_root = !tls->ca_file.empty() && !tls->insecure_skip_verify;
  if (has_root || !tls->cert_file.empty()) {
    options.set_certificate_provider(std::make_shared<experimental::FileWatcherCertificateProvider>(
        tls->key_file, tls->cert_file, has_root ? tls->ca_file : std::string(), kRefreshSeconds));
  }
  if (has_root) options.watch_root_certs();
  if (!tls->cert_file.empty()) options.watch_identity_key_cert_pairs();
  if (tls->insecure_skip_verify) {
    options.set_verify_server_certs(false);
    options.set_check_call_host(false);
    options.set_certificate_verifier(std::make_shared<experimental::NoOpCertificateVerifier>());
  }
  return experimental::TlsCredentials(options);
}

}  // namespace conclave
