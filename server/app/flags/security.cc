// --help's group "Security": TLS on the ports of clients and of members.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

constexpr char kNoTls[] = "TLS is not there yet";
// The config file's sections.
constexpr char kClient[] = "client-transport-security";
constexpr char kPeer[] = "peer-transport-security";

const FlagEntry kFlags[] = {
    Refused("cert-file", kText, kNoTls).InFile(kClient, "cert-file"),
    Refused("key-file", kText, kNoTls).InFile(kClient, "key-file"),
    Refused("client-cert-auth", kBool, kNoTls).InFile(kClient, "client-cert-auth"),
    Refused("client-crl-file", kText, kNoTls).InFile(kClient, "client-crl-file"),
    Refused("client-cert-allowed-hostname", kList, kNoTls).InFile(kClient, "allowed-hostname"),
    Refused("trusted-ca-file", kText, kNoTls).InFile(kClient, "trusted-ca-file"),
    Refused("auto-tls", kBool, kNoTls).InFile(kClient, "auto-tls"),
    Refused("peer-cert-file", kText, kNoTls).InFile(kPeer, "cert-file"),
    Refused("peer-key-file", kText, kNoTls).InFile(kPeer, "key-file"),
    Refused("peer-client-cert-auth", kBool, kNoTls).InFile(kPeer, "client-cert-auth"),
    Refused("peer-client-cert-file", kText, kNoTls).InFile(kPeer, "client-cert-file"),
    Refused("peer-client-key-file", kText, kNoTls).InFile(kPeer, "client-key-file"),
    Refused("peer-trusted-ca-file", kText, kNoTls).InFile(kPeer, "trusted-ca-file"),
    Refused("peer-auto-tls", kBool, kNoTls).InFile(kPeer, "auto-tls"),
    Refused("peer-crl-file", kText, kNoTls).InFile(kPeer, "crl-file"),
    Refused("peer-cert-allowed-cn", kList, kNoTls).InFile(kPeer, "allowed-cn"),
    Refused("peer-cert-allowed-hostname", kList, kNoTls).InFile(kPeer, "allowed-hostname"),
    Refused("self-signed-cert-validity", kNumber, kNoTls),
    Refused("cipher-suites", kList, kNoTls),
    Refused("tls-min-version", kText, kNoTls),
    Refused("tls-max-version", kText, kNoTls),
};

}  // namespace

FlagGroup SecurityFlags() { return {"Security", kFlags}; }

}  // namespace conclave::app
