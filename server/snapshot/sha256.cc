#include "conclave/server/snapshot/sha256.h"

#include <openssl/evp.h>

#include "conclave/base/check.h"

namespace conclave::snapshot {

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  CONCLAVE_CHECK(context_->md != nullptr &&
                 EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Append(std::string_view bytes) {
  CONCLAVE_CHECK(EVP_DigestUpdate(context_->md, bytes.data(), bytes.size()) == 1);
}

Hash Sha256::Finish() {
  Hash hash;
  unsigned int size = 0;
  CONCLAVE_CHECK(
      EVP_DigestFinal_ex(context_->md, reinterpret_cast<unsigned char*>(hash.data()), &size) == 1 &&
      size == hash.size());
  return hash;
}

}  // namespace conclave::snapshot
