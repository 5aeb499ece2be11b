#include "conclave/tests/support/authority.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"

namespace conclave::testing {
namespace {

constexpr long kDay = 86'400;  // NOLINT(google-runtime-int): OpenSSL's

struct FreeX509 {
  void operator()(X509* object) const { X509_free(object); }
  void operator()(X509_CRL* object) const { X509_CRL_free(object); }
  void operator()(EVP_PKEY* object) const { EVP_PKEY_free(object); }
};
using X509Ptr = std::unique_ptr<X509, FreeX509>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeX509>;
using CrlPtr = std::unique_ptr<X509_CRL, FreeX509>;

// Serial numbers of all authorities of the process: no two certificates share one.
long NextSerial() {         // NOLINT(google-runtime-int)
  static long last = 1000;  // NOLINT(google-runtime-int)
  return ++last;
}

template <typename WriteTo>
void WritePem(const std::string& path, WriteTo&& write) {
  BIO* bio = BIO_new(BIO_s_mem());
  CONCLAVE_CHECK(write(bio) == 1);
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio, &data));
  {
    std::ofstream file(path + ".new", std::ios::binary | std::ios::trunc);
    file.write(data, static_cast<std::streamsize>(size));
    CONCLAVE_CHECK(file.good(), path);
  }
  BIO_free(bio);
  std::filesystem::rename(path + ".new", path);
}

void AddExtension(X509* cert, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context{};
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, cert, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  CONCLAVE_CHECK(extension != nullptr, value);
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
}

X509Ptr Begin(EVP_PKEY* key, const std::string& name, long from, long to) {  // NOLINT
  X509Ptr cert(X509_new());
  X509_set_version(cert.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), NextSerial());
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), from);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), to);
  X509_set_pubkey(cert.get(), key);
  X509_NAME_add_entry_by_NID(X509_get_subject_name(cert.get()), NID_commonName, MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return cert;
}

void WriteKey(const std::string& path, EVP_PKEY* key) {
  WritePem(path, [key](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
}
void WriteCert(const std::string& path, X509* cert) {
  WritePem(path, [cert](BIO* bio) { return PEM_write_bio_X509(bio, cert); });
}

}  // namespace

struct Authority::Identity {
  KeyPtr key{EVP_EC_gen("P-256")};
  X509Ptr cert;
  std::vector<X509Ptr> revoked;
};

Authority::Authority(std::string directory, const std::string& name)
    : directory_(std::move(directory)),
      ca_file_(absl::StrCat(directory_, "/", name, ".pem")),
      crl_file_(absl::StrCat(directory_, "/", name, ".crl")),
      identity_(std::make_unique<Identity>()) {
  std::filesystem::create_directories(directory_);
  identity_->cert = Begin(identity_->key.get(), name, -kDay, 365 * kDay);
  X509* cert = identity_->cert.get();
  X509_set_issuer_name(cert, X509_get_subject_name(cert));
  AddExtension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign");
  AddExtension(cert, cert, NID_subject_key_identifier, "hash");
  CONCLAVE_CHECK(X509_sign(cert, identity_->key.get(), EVP_sha256()) > 0);
  WriteCert(ca_file_, cert);
  Revoke({});
}

Authority::~Authority() = default;

Authority::Files Authority::Issue(const Leaf& leaf) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr cert = Begin(key.get(), leaf.name, -2 * kDay, leaf.expired ? -kDay : 30 * kDay);
  X509* issuer = identity_->cert.get();
  X509_set_issuer_name(cert.get(), X509_get_subject_name(issuer));
  AddExtension(cert.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(cert.get(), issuer, NID_key_usage, "critical,digitalSignature");
  AddExtension(cert.get(), issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  std::string names;
  for (const std::string& host : leaf.hosts) {
    const bool is_address = host.find_first_not_of("0123456789.:") == std::string::npos;
    absl::StrAppend(&names, names.empty() ? "" : ",", is_address ? "IP:" : "DNS:", host);
  }
  if (!names.empty()) AddExtension(cert.get(), issuer, NID_subject_alt_name, names);
  CONCLAVE_CHECK(X509_sign(cert.get(), identity_->key.get(), EVP_sha256()) > 0);
  Files files{absl::StrCat(directory_, "/", leaf.name, ".crt"),
              absl::StrCat(directory_, "/", leaf.name, ".key")};
  WriteKey(files.key, key.get());
  WriteCert(files.cert, cert.get());
  return files;
}

void Authority::Revoke(const Files& files) {
  if (!files.cert.empty()) {
    BIO* bio = BIO_new_file(files.cert.c_str(), "r");
    identity_->revoked.emplace_back(PEM_read_bio_X509(bio, nullptr, nullptr, nullptr));
    CONCLAVE_CHECK(identity_->revoked.back() != nullptr, files.cert);
    BIO_free(bio);
  }
  const CrlPtr list(X509_CRL_new());
  X509_CRL_set_version(list.get(), 1);
  X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(identity_->cert.get()));
  ASN1_TIME* time = X509_gmtime_adj(nullptr, -kDay);
  X509_CRL_set1_lastUpdate(list.get(), time);
  for (const X509Ptr& cert : identity_->revoked) {
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(cert.get()));
    X509_REVOKED_set_revocationDate(entry, time);
    X509_CRL_add0_revoked(list.get(), entry);
  }
  X509_gmtime_adj(time, 30 * kDay);
  X509_CRL_set1_nextUpdate(list.get(), time);
  ASN1_TIME_free(time);
  CONCLAVE_CHECK(X509_CRL_sign(list.get(), identity_->key.get(), EVP_sha256()) > 0);
  WritePem(crl_file_, [&](BIO* bio) { return PEM_write_bio_X509_CRL(bio, list.get()); });
}

}  // namespace conclave::testing
