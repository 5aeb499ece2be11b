// --help's group "Security": TLS on the ports of clients and of members.
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"
#include "conclave/server/tls/names.h"

namespace conclave::app {
namespace {

using enum FlagKind;

// The config file's sections.
constexpr char kClient[] = "client-transport-security";
constexpr char kPeer[] = "peer-transport-security";

template <TlsConfig Config::*kPort, std::string tls::Options::*kField>
absl::Status SetFile(std::string_view value, Config* config) {
  (config->*kPort).files.*kField = std::string(value);
  return absl::OkStatus();
}

template <TlsConfig Config::*kPort>
absl::Status SetCertAuth(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN((config->*kPort).files.client_cert_auth, ParseBool(value));
  return absl::OkStatus();
}

template <TlsConfig Config::*kPort>
absl::Status SetSelfSigned(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN((config->*kPort).self_signed, ParseBool(value));
  return absl::OkStatus();
}

std::vector<std::string> SplitList(std::string_view value) {
  std::vector<std::string> parts;
  for (const auto& part : absl::StrSplit(std::string(value), ',', absl::SkipWhitespace())) {
    parts.emplace_back(absl::StripAsciiWhitespace(part));
  }
  return parts;
}

template <TlsConfig Config::*kPort, std::vector<std::string> tls::Options::*kField>
absl::Status SetNames(std::string_view value, Config* config) {
  (config->*kPort).files.*kField = SplitList(value);
  return absl::OkStatus();
}

absl::Status SetCipherSuites(std::string_view value, Config* config) {
  config->cipher_suites = SplitList(value);
  return tls::ParseSuites(config->cipher_suites).status();
}

absl::Status SetMinVersion(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->tls_min_version, tls::ParseVersion(value));
  return absl::OkStatus();
}

absl::Status SetMaxVersion(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->tls_max_version, tls::ParseVersion(value));
  return absl::OkStatus();
}

absl::Status SetSkipAddresses(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const bool skip, ParseBool(value));
  config->peer_tls.files.check_addresses = !skip;
  return absl::OkStatus();
}

constexpr auto kClientTls = &Config::client_tls;
constexpr auto kPeerTls = &Config::peer_tls;
using Files = tls::Options;

const FlagEntry kFlags[] = {
    Works("cert-file", kText, "", "certificate of the client port (PEM, with its chain)",
          SetFile<kClientTls, &Files::cert_file>)
        .InFile(kClient, "cert-file"),
    Works("key-file", kText, "", "its private key", SetFile<kClientTls, &Files::key_file>)
        .InFile(kClient, "key-file"),
    Works("client-cert-auth", kBool, "false",
          "clients must show a certificate; its common name is their user name",
          SetCertAuth<kClientTls>)
        .InFile(kClient, "client-cert-auth"),
    Works("client-crl-file", kText, "", "revoked certificates of clients",
          SetFile<kClientTls, &Files::crl_file>)
        .InFile(kClient, "client-crl-file"),
    Works("client-cert-allowed-hostname", kList, "",
          "clients' certificates must be made for one of these hosts",
          SetNames<kClientTls, &Files::allowed_hostnames>)
        .InFile(kClient, "allowed-hostname"),
    Works("trusted-ca-file", kText, "",
          "authorities that clients' certificates come from; with it they must show one",
          SetFile<kClientTls, &Files::ca_file>)
        .InFile(kClient, "trusted-ca-file"),
    Works("auto-tls", kBool, "false", "make a certificate for the client port, when none is given",
          SetSelfSigned<kClientTls>)
        .InFile(kClient, "auto-tls"),
    Works("peer-cert-file", kText, "", "certificate of this member, for other members",
          SetFile<kPeerTls, &Files::cert_file>)
        .InFile(kPeer, "cert-file"),
    Works("peer-key-file", kText, "", "its private key", SetFile<kPeerTls, &Files::key_file>)
        .InFile(kPeer, "key-file"),
    Works("peer-client-cert-auth", kBool, "false", "other members must show a certificate",
          SetCertAuth<kPeerTls>)
        .InFile(kPeer, "client-cert-auth"),
    Works("peer-client-cert-file", kText, "as --peer-cert-file",
          "certificate to show when this member calls others",
          SetFile<kPeerTls, &Files::client_cert_file>)
        .InFile(kPeer, "client-cert-file"),
    Works("peer-client-key-file", kText, "as --peer-key-file", "its private key",
          SetFile<kPeerTls, &Files::client_key_file>)
        .InFile(kPeer, "client-key-file"),
    Works("peer-trusted-ca-file", kText, "",
          "authorities that members' certificates come from; with it they must show one",
          SetFile<kPeerTls, &Files::ca_file>)
        .InFile(kPeer, "trusted-ca-file"),
    Works("peer-auto-tls", kBool, "false", "make a certificate for this member, when none is given",
          SetSelfSigned<kPeerTls>)
        .InFile(kPeer, "auto-tls"),
    Works("peer-crl-file", kText, "", "revoked certificates of members",
          SetFile<kPeerTls, &Files::crl_file>)
        .InFile(kPeer, "crl-file"),
    Works("peer-cert-allowed-cn", kList, "", "members' certificates must have one of these names",
          SetNames<kPeerTls, &Files::allowed_names>)
        .InFile(kPeer, "allowed-cn"),
    Works("peer-cert-allowed-hostname", kList, "",
          "members' certificates must be made for one of these hosts",
          SetNames<kPeerTls, &Files::allowed_hostnames>)
        .InFile(kPeer, "allowed-hostname"),
    Works("self-signed-cert-validity", kNumber, "1",
          "years that certificates of --auto-tls and --peer-auto-tls are good for",
          SetNumber<&Config::self_signed_years, 1, 100>),
    Works("cipher-suites", kList, "those with forward secrecy",
          "suites to offer, by Go's names; TLS 1.3 has its own", SetCipherSuites),
    Works("tls-min-version", kText, "TLS1.2", "TLS1.2 or TLS1.3", SetMinVersion),
    Works("tls-max-version", kText, "TLS1.3", "TLS1.2 or TLS1.3", SetMaxVersion),
    Works("peer-skip-client-san-verification", kBool, "false",
          "members may call from elsewhere than their certificates say", SetSkipAddresses)
        .OnceExperimental(),
};

}  // namespace

FlagGroup SecurityFlags() { return {"Security", kFlags}; }

}  // namespace conclave::app
