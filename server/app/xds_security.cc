#include "conclave/server/app/xds_security.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <string_view>
#include <utility>

#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/writer.h"

namespace conclave::app {
namespace {

namespace security = grpc::experimental;

constexpr unsigned kLookAgainSeconds = 1;  // at the files

std::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

// gRPC has verified the chain; the policy knows whom else not to believe.
class ByPolicy final : public security::ExternalCertificateVerifier {
 public:
  explicit ByPolicy(tls::Policy* policy) : policy_(policy) {}
  ~ByPolicy() override = default;

  bool Verify(security::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> /*callback*/, grpc::Status* status) override {
    const absl::Status judged =
        policy_->JudgeClient(View(request->peer_cert()), View(request->peer_cert_full_chain()));
    *status = judged.ok()
                  ? grpc::Status::OK
                  : grpc::Status(grpc::StatusCode::UNAUTHENTICATED, std::string(judged.message()));
    return true;
  }
  void Cancel(security::TlsCustomVerificationCheckRequest* /*request*/) override {}

 private:
  tls::Policy* const policy_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> XdsCredentials(tls::Policy* policy) {
  const tls::Options& files = policy->options();
  if (files.client_cert_auth && files.ca_file.empty()) {
    return absl::InvalidArgumentError(
        "--listen-xds-urls with https:// and --client-cert-auth needs --trusted-ca-file");
  }
  security::TlsServerCredentialsOptions options(
      std::make_shared<security::FileWatcherCertificateProvider>(files.key_file, files.cert_file,
                                                                 files.ca_file, kLookAgainSeconds));
  options.watch_identity_key_cert_pairs();
  options.set_check_call_host(false);
  if (!files.ca_file.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.set_certificate_verifier(ByPolicy::Create<ByPolicy>(policy));
  }
  return security::TlsServerCredentials(options);
}

void AskMaySee(Core* core, const std::string& user, const std::string& service,
               std::function<void(std::optional<bool>)> answer) {
  // RangeRequest of all instances, whose answer is a number.
  wire::Builder request;
  request.AppendText(1, service + "/");
  request.AppendText(2, service + "0");  // the byte behind the slash
  request.AppendNumber(7, uint64_t{1});  // serializable
  request.AppendNumber(9, uint64_t{1});  // count_only
  node::CredentialsRef who;
  if (!user.empty()) {
    auto shown = std::make_shared<node::Credentials>();
    shown->certificate_name = user;
    who = std::move(shown);
  }
  core->Call(
      node::Method::kRange, std::string(request.view()),
      [answer = std::move(answer)](node::Reply reply) {
        if (reply.error == nullptr) return answer(true);
        switch (static_cast<wire::Code>(reply.error->code)) {
          case wire::Code::kPermissionDenied:
          case wire::Code::kUnauthenticated:
          case wire::Code::kInvalidArgument:  // nobody
            return answer(false);
          default:
            return answer(std::nullopt);
        }
      },
      std::move(who));
}

}  // namespace conclave::app
