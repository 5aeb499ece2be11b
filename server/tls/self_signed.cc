#include "conclave/server/tls/self_signed.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"

namespace conclave::tls {
namespace {

constexpr char kCurve[] = "P-256";
constexpr char kOrganization[] = "conclave";
constexpr int kSerialBytes = 16;
constexpr int kDaysPerYear = 365;
constexpr long kSecondsPerDay = 86'400;  // NOLINT(google-runtime-int): OpenSSL's
constexpr mode_t kPublicMode = 0644;
constexpr mode_t kPrivateMode = 0600;
constexpr mode_t kDirectoryMode = 0700;
constexpr long kX509Version3 = 2;  // NOLINT(google-runtime-int): OpenSSL's

using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free)>;

bool IsUsable(const std::string& cert_file, const std::string& key_file) {
  if (access(key_file.c_str(), R_OK) != 0) return false;
  const BioPtr bio(BIO_new_file(cert_file.c_str(), "r"), &BIO_free);
  const X509Ptr cert(
      bio == nullptr ? nullptr : PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr),
      &X509_free);
  ERR_clear_error();
  return cert != nullptr && X509_cmp_current_time(X509_get0_notAfter(cert.get())) > 0;
}

void AddExtension(X509* cert, int id, const std::string& value) {
  X509V3_CTX context{};
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, cert, cert, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  CONCLAVE_CHECK(extension != nullptr, value);
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
}

bool IsIpAddress(const std::string& host) {
  ASN1_OCTET_STRING* const parsed = a2i_IPADDRESS(host.c_str());
  ASN1_OCTET_STRING_free(parsed);
  ERR_clear_error();
  return parsed != nullptr;
}

X509Ptr Make(EVP_PKEY* key, const std::vector<std::string>& hosts, int years) {
  X509Ptr cert(X509_new(), &X509_free);
  CONCLAVE_CHECK(cert != nullptr, "out of memory");
  X509_set_version(cert.get(), kX509Version3);
  unsigned char serial[kSerialBytes];
  CONCLAVE_CHECK(RAND_bytes(serial, sizeof serial) == 1);
  BIGNUM* const number = BN_bin2bn(serial, sizeof serial, nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert.get()));
  BN_free(number);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()),
                  static_cast<long>(years) * kDaysPerYear * kSecondsPerDay);  // NOLINT
  X509_set_pubkey(cert.get(), key);
  X509_NAME* const name = X509_get_subject_name(cert.get());
  X509_NAME_add_entry_by_NID(name, NID_organizationName, MBSTRING_ASC,
                             reinterpret_cast<unsigned char*>(const_cast<char*>(kOrganization)), -1,
                             -1, 0);
  X509_set_issuer_name(cert.get(), name);
  AddExtension(cert.get(), NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(cert.get(), NID_key_usage, "critical,digitalSignature,keyEncipherment");
  AddExtension(cert.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  std::string names;
  for (const std::string& host : hosts) {
    absl::StrAppend(&names, names.empty() ? "" : ",", IsIpAddress(host) ? "IP:" : "DNS:", host);
  }
  if (!names.empty()) AddExtension(cert.get(), NID_subject_alt_name, names);
  CONCLAVE_CHECK(X509_sign(cert.get(), key, EVP_sha256()) > 0);
  return cert;
}

absl::Status WriteFile(const std::string& path, BIO* content, mode_t mode) {
  // Whole or not at all: a half written file would be taken for a good one at the next start.
  const std::string temporary = path + ".new";
  char* data = nullptr;
  const long size = BIO_get_mem_data(content, &data);  // NOLINT(google-runtime-int): OpenSSL's
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  bool good =
      fd >= 0 && fchmod(fd, mode) == 0 && write(fd, data, static_cast<size_t>(size)) == size;
  good = good && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  if (!good || rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// Nobody else's to read, as the data directory that they may be the first to make.
absl::Status MakeDirectories(const std::filesystem::path& directory) {
  std::filesystem::path so_far;
  for (const auto& part : directory) {
    so_far /= part;
    if (mkdir(so_far.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
      return absl::FailedPreconditionError(
          absl::StrCat(directory.string(), ": ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SelfSigned> KeepSelfSigned(const std::string& directory,
                                          const std::vector<std::string>& hosts, int years) {
  if (years < 1) {
    return absl::InvalidArgumentError(
        "selfSignedCertValidity is invalid,it should be greater than 0");
  }
  SelfSigned files{directory + "/cert.pem", directory + "/key.pem"};
  if (IsUsable(files.cert_file, files.key_file)) return files;
  CONCLAVE_RETURN_IF_ERROR(MakeDirectories(directory));
  const KeyPtr key(EVP_EC_gen(kCurve), &EVP_PKEY_free);
  CONCLAVE_CHECK(key != nullptr);
  const X509Ptr cert = Make(key.get(), hosts, years);
  const BioPtr cert_text(BIO_new(BIO_s_mem()), &BIO_free);
  const BioPtr key_text(BIO_new(BIO_s_secmem()), &BIO_free);
  CONCLAVE_CHECK(PEM_write_bio_X509(cert_text.get(), cert.get()) == 1);
  CONCLAVE_CHECK(PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0,
                                               nullptr, nullptr) == 1);
  // The key first: a certificate tells that its key is there.
  CONCLAVE_RETURN_IF_ERROR(WriteFile(files.key_file, key_text.get(), kPrivateMode));
  CONCLAVE_RETURN_IF_ERROR(WriteFile(files.cert_file, cert_text.get(), kPublicMode));
  files.is_new = true;
  return files;
}

}  // namespace conclave::tls
