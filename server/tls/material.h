// Material: what a Policy's files said at one time, ready for use. Immutable; shared by the
// connections that began with it.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "conclave/server/tls/policy.h"

namespace conclave::tls {

class Material {
 public:
  static absl::StatusOr<std::shared_ptr<const Material>> Load(const Options& options,
                                                              uint64_t number);
  ~Material();
  Material(const Material&) = delete;
  Material& operator=(const Material&) = delete;

  SSL_CTX* accepting() const { return accepting_; }
  SSL_CTX* dialling() const { return dialling_; }
  uint64_t number() const { return number_; }
  const Options& options() const { return options_; }

  bool IsRevoked(X509* certificate) const;
  // The leaf's names are among those that are allowed.
  bool AllowsNames(X509* leaf) const;
  // Whether the chain that a client (or a server) showed in an earlier handshake would be believed
  // today.
  bool Believes(STACK_OF(X509) * chain, bool of_client) const;

 private:
  Material(const Options& options, uint64_t number) : options_(options), number_(number) {}
  absl::Status LoadFiles();
  absl::Status SetUp(SSL_CTX* context, const Suites& suites);
  absl::Status UseIdentity(SSL_CTX* context, const std::string& cert_file,
                           const std::string& key_file);
  absl::Status UseAuthorities();
  absl::Status LoadRevocations();

  const Options& options_;  // of the Policy, which outlives its connections
  const uint64_t number_;
  SSL_CTX* accepting_ = nullptr;
  SSL_CTX* dialling_ = nullptr;
  STACK_OF(X509_CRL) * revocations_ = nullptr;
};

// Of the subject; empty if it has none.
std::string CommonName(X509* certificate);

}  // namespace conclave::tls
