#include "conclave/server/tls/material.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"

namespace conclave::tls {
namespace {

// Bytes that OpenSSL takes from a socket at once. 16 KiB is one record.
constexpr size_t kReadAheadBytes = 32 * 1024;

template <auto kFree>
struct Free {
  template <typename Object>
  void operator()(Object* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Free<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Free<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

absl::Status BadFile(const std::string& path, std::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": ", std::string(why)));
}

// The file's text lives as long as the BIO that reads it.
struct Text {
  std::string bytes;
  BioPtr bio;
};

absl::StatusOr<Text> Open(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return BadFile(path, "cannot be read");
  Text text;
  text.bytes.resize(kFileBytesMax + 1);
  file.read(text.bytes.data(), static_cast<std::streamsize>(text.bytes.size()));
  if (file.bad()) return BadFile(path, "cannot be read");
  text.bytes.resize(static_cast<size_t>(file.gcount()));
  if (text.bytes.size() > kFileBytesMax) return BadFile(path, "is too large");
  return text;
}

BIO* Reader(Text* text) {
  text->bio.reset(BIO_new_mem_buf(text->bytes.data(), static_cast<int>(text->bytes.size())));
  CONCLAVE_CHECK(text->bio != nullptr, "out of memory");
  return text->bio.get();
}

// An encrypted key would make OpenSSL ask the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*user*/) { return -1; }

X509Ptr NextCertificate(BIO* bio) {
  return X509Ptr(PEM_read_bio_X509(bio, nullptr, NoPassphrase, nullptr));
}

// Called for each certificate of a chain from the root to the leaf; `ok` says what the standard
// checks made of it.
int JudgeCertificate(int ok, X509_STORE_CTX* context) {
  if (ok == 0 || X509_STORE_CTX_get_error_depth(context) != 0) return ok;
  auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const auto* material = static_cast<const Material*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(context);
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    if (!material->IsRevoked(sk_X509_value(chain, i))) continue;
    X509_STORE_CTX_set_error_depth(context, i);
    X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_REVOKED);
    return 0;
  }
  if (SSL_is_server(ssl) == 1 && !material->AllowsNames(sk_X509_value(chain, 0))) {
    X509_STORE_CTX_set_error(context, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
  }
  return 1;
}

// HTTP/2 if both sides speak it.
int ChooseProtocol(SSL* ssl, const unsigned char** chosen, unsigned char* chosen_size,
                   const unsigned char* offered, unsigned offered_size, void* /*user*/) {
  const auto speaks = static_cast<Speaks>(reinterpret_cast<uintptr_t>(SSL_get_app_data(ssl)));
  if (speaks == Speaks::kPeerStreams) return SSL_TLSEXT_ERR_NOACK;
  static constexpr unsigned char kOurs[] = "\x02h2\x08http/1.1";
  constexpr unsigned kHttp2Bytes = 3;
  constexpr unsigned kBothBytes = sizeof(kOurs) - 1;
  const unsigned size = speaks == Speaks::kHttp ? kBothBytes : kHttp2Bytes;
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, chosen_size, kOurs, size, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

int ProtocolNumber(Version version, int otherwise) {
  switch (version) {
    case Version::kAny:
      return otherwise;
    case Version::kTls12:
      return TLS1_2_VERSION;
    case Version::kTls13:
      return TLS1_3_VERSION;
  }
  return otherwise;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Material>> Material::Load(const Options& options,
                                                               uint64_t number) {
  std::shared_ptr<Material> material(new Material(options, number));
  const absl::Status status = material->LoadFiles();
  ERR_clear_error();
  if (!status.ok()) return status;
  return material;
}

Material::~Material() {
  SSL_CTX_free(accepting_);
  SSL_CTX_free(dialling_);
  sk_X509_CRL_pop_free(revocations_, X509_CRL_free);
}

absl::Status Material::LoadFiles() {
  CONCLAVE_ASSIGN_OR_RETURN(const Suites suites, ParseSuites(options_.cipher_suites));
  accepting_ = SSL_CTX_new(TLS_server_method());
  dialling_ = SSL_CTX_new(TLS_client_method());
  CONCLAVE_CHECK(accepting_ != nullptr && dialling_ != nullptr, "out of memory");
  for (SSL_CTX* context : {accepting_, dialling_}) {
    CONCLAVE_RETURN_IF_ERROR(SetUp(context, suites));
  }
  CONCLAVE_RETURN_IF_ERROR(UseIdentity(accepting_, options_.cert_file, options_.key_file));
  const bool own = !options_.client_cert_file.empty();
  CONCLAVE_RETURN_IF_ERROR(UseIdentity(dialling_,
                                       own ? options_.client_cert_file : options_.cert_file,
                                       own ? options_.client_key_file : options_.key_file));
  CONCLAVE_RETURN_IF_ERROR(UseAuthorities());
  CONCLAVE_RETURN_IF_ERROR(LoadRevocations());

  SSL_CTX_set_alpn_select_cb(accepting_, ChooseProtocol, nullptr);
  if (!options_.ca_file.empty() || options_.client_cert_auth) {
    SSL_CTX_set_verify(accepting_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       JudgeCertificate);
  }
  SSL_CTX_set_verify(dialling_, options_.trust_any_server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
                     JudgeCertificate);
  return absl::OkStatus();
}

absl::Status Material::SetUp(SSL_CTX* context, const Suites& suites) {
  SSL_CTX_set_app_data(context, this);
  SSL_CTX_set_min_proto_version(context, ProtocolNumber(options_.version_min, TLS1_2_VERSION));
  SSL_CTX_set_max_proto_version(context, ProtocolNumber(options_.version_max, 0));
  if (SSL_CTX_set_cipher_list(context, suites.tls12.c_str()) != 1 ||
      SSL_CTX_set_ciphersuites(context, suites.tls13.c_str()) != 1) {
    return absl::InvalidArgumentError("these TLS cipher suites cannot be used together");
  }
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadAheadBytes);
  SSL_CTX_set_verify_depth(context, kChainDepthMax);
  // Whatever stands in the CA file is believed, also when it is not a root.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
  return absl::OkStatus();
}

absl::Status Material::UseIdentity(SSL_CTX* context, const std::string& cert_file,
                                   const std::string& key_file) {
  CONCLAVE_ASSIGN_OR_RETURN(Text text, Open(cert_file));
  BIO* bio = Reader(&text);
  X509Ptr leaf = NextCertificate(bio);
  if (leaf == nullptr) return BadFile(cert_file, "holds no certificate in PEM");
  if (SSL_CTX_use_certificate(context, leaf.get()) != 1) {
    return BadFile(cert_file, "its certificate cannot be used; its key or signature is too weak");
  }
  while (X509Ptr next = NextCertificate(bio)) {
    if (SSL_CTX_add1_chain_cert(context, next.get()) != 1) {
      return BadFile(cert_file, "a certificate of the chain cannot be used");
    }
  }
  CONCLAVE_ASSIGN_OR_RETURN(Text key_text, Open(key_file));
  const KeyPtr key(PEM_read_bio_PrivateKey(Reader(&key_text), nullptr, NoPassphrase, nullptr));
  OPENSSL_cleanse(key_text.bytes.data(), key_text.bytes.size());
  if (key == nullptr) return BadFile(key_file, "holds no unencrypted private key in PEM");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return BadFile(key_file, absl::StrCat("is not the key of the certificate in ", cert_file));
  }
  return absl::OkStatus();
}

absl::Status Material::UseAuthorities() {
  if (options_.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(dialling_);
    if (options_.client_cert_auth) SSL_CTX_set_default_verify_paths(accepting_);
    return absl::OkStatus();
  }
  CONCLAVE_ASSIGN_OR_RETURN(Text text, Open(options_.ca_file));
  BIO* bio = Reader(&text);
  int count = 0;
  while (X509Ptr authority = NextCertificate(bio)) {
    ++count;
    X509_STORE_add_cert(SSL_CTX_get_cert_store(accepting_), authority.get());
    X509_STORE_add_cert(SSL_CTX_get_cert_store(dialling_), authority.get());
    SSL_CTX_add_client_CA(accepting_, authority.get());
  }
  if (count == 0) return BadFile(options_.ca_file, "holds no certificate in PEM");
  return absl::OkStatus();
}

absl::Status Material::LoadRevocations() {
  if (options_.crl_file.empty()) return absl::OkStatus();
  CONCLAVE_ASSIGN_OR_RETURN(Text text, Open(options_.crl_file));
  revocations_ = sk_X509_CRL_new_null();
  BIO* bio = Reader(&text);
  while (X509_CRL* list = PEM_read_bio_X509_CRL(bio, nullptr, NoPassphrase, nullptr)) {
    sk_X509_CRL_push(revocations_, list);
  }
  if (sk_X509_CRL_num(revocations_) == 0) {
    if (X509_CRL* list = d2i_X509_CRL_bio(Reader(&text), nullptr)) {
      sk_X509_CRL_push(revocations_, list);
    }
  }
  if (sk_X509_CRL_num(revocations_) == 0) {
    return BadFile(options_.crl_file, "holds no list of revoked certificates (PEM or DER)");
  }
  return absl::OkStatus();
}

bool Material::IsRevoked(X509* certificate) const {
  // A list says what is revoked also when a newer one is overdue.
  for (int i = 0; i < sk_X509_CRL_num(revocations_); ++i) {
    X509_REVOKED* entry = nullptr;
    if (X509_CRL_get0_by_cert(sk_X509_CRL_value(revocations_, i), &entry, certificate) == 1) {
      return true;
    }
  }
  return false;
}

std::string CommonName(X509* certificate) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return {};
  ASN1_STRING* value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, value);
  if (size < 0) return {};
  std::string name(reinterpret_cast<char*>(utf8), static_cast<size_t>(size));
  OPENSSL_free(utf8);
  return name;
}

bool Material::AllowsNames(X509* leaf) const {
  const auto& names = options_.allowed_names;
  if (!names.empty()) {
    return std::find(names.begin(), names.end(), CommonName(leaf)) != names.end();
  }
  const auto& hosts = options_.allowed_hostnames;
  if (hosts.empty()) return true;
  constexpr unsigned kFlags =
      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
  return std::any_of(hosts.begin(), hosts.end(), [&](const std::string& host) {
    return X509_check_host(leaf, host.data(), host.size(), kFlags, nullptr) == 1 ||
           X509_check_ip_asc(leaf, host.c_str(), 0) == 1;
  });
}

bool Material::Believes(STACK_OF(X509) * chain, bool of_client) const {
  SSL_CTX* const judge = of_client ? accepting_ : dialling_;
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    if (IsRevoked(sk_X509_value(chain, i))) return false;
  }
  X509_STORE_CTX* context = X509_STORE_CTX_new();
  CONCLAVE_CHECK(context != nullptr, "out of memory");
  bool believed = false;
  if (X509_STORE_CTX_init(context, SSL_CTX_get_cert_store(judge), sk_X509_value(chain, 0), chain) ==
      1) {
    X509_STORE_CTX_set_default(context, of_client ? "ssl_client" : "ssl_server");
    X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    believed = X509_verify_cert(context) == 1;
  }
  X509_STORE_CTX_free(context);
  ERR_clear_error();
  return believed;
}

}  // namespace conclave::tls
