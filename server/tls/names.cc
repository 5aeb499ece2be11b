#include "conclave/server/tls/names.h"

#include <openssl/ssl.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace conclave::tls {
namespace {

constexpr char kDefault12[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr char kDefault13[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

absl::Status Unexpected(std::string_view name, std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("unexpected TLS cipher suite \"", std::string(name), "\"", std::string(why)));
}

// Go's two older names lack the hash that the registered ones end with.
std::string RegisteredName(const std::string& name) {
  if (name.ends_with("_CHACHA20_POLY1305")) return name + "_SHA256";
  return name;
}

bool IsOffered(const std::string& openssl_name) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_method()),
                                                                  &SSL_CTX_free);
  return context != nullptr && SSL_CTX_set_cipher_list(context.get(), openssl_name.c_str()) == 1;
}

}  // namespace

absl::StatusOr<Version> ParseVersion(std::string_view text) {
  if (text.empty()) return Version::kAny;
  if (text == "TLS1.2") return Version::kTls12;
  if (text == "TLS1.3") return Version::kTls13;
  return absl::InvalidArgumentError(
      absl::StrCat("unexpected TLS version \"", std::string(text), "\"; must be TLS1.2 or TLS1.3"));
}

Suites DefaultSuites() { return {kDefault12, kDefault13}; }

absl::StatusOr<Suites> ParseSuites(const std::vector<std::string>& names) {
  if (names.empty()) return DefaultSuites();
  std::vector<std::string> tls12;
  std::vector<std::string> tls13;
  for (const std::string& name : names) {
    const std::string registered = RegisteredName(name);
    const char* found = OPENSSL_cipher_name(registered.c_str());
    if (found == nullptr || std::string_view(found) == "(NONE)") return Unexpected(name, "");
    // TLS 1.3's names are the same in both worlds, with underscores.
    if (std::string_view(found).starts_with("TLS_")) {
      tls13.emplace_back(found);
    } else if (IsOffered(found)) {
      tls12.emplace_back(found);
    } else {
      return Unexpected(name, ": it is too weak to be offered here");
    }
  }
  Suites suites = DefaultSuites();
  if (!tls13.empty()) suites.tls13 = absl::StrJoin(tls13, ":");
  // Only names of TLS 1.3: its clients choose among them, others among the defaults.
  if (!tls12.empty()) suites.tls12 = absl::StrJoin(tls12, ":");
  return suites;
}

}  // namespace conclave::tls
