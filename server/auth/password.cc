#include "conclave/server/auth/password.h"

#include <crypt.h>
#include <openssl/crypto.h>

#include <memory>

#include "conclave/base/check.h"
#include "conclave/server/auth/jwt.h"

namespace conclave::auth {
namespace {

constexpr char kBcryptPrefix[] = "$2b$";
constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

// A salt of `cost`, of the random bytes' first half.
std::string MakeSalt(int cost, const RandomBytes& random) {
  std::array<char, CRYPT_GENSALT_OUTPUT_SIZE> salt{};
  const char* const made = crypt_gensalt_rn(kBcryptPrefix, static_cast<unsigned long>(cost),
                                            reinterpret_cast<const char*>(random.data()), 16,
                                            salt.data(), static_cast<int>(salt.size()));
  CONCLAVE_CHECK(made != nullptr, "no bcrypt of cost ", cost);
  return made;
}

// Empty if `setting` is no bcrypt setting.
std::string Bcrypt(const Secret& password, const std::string& setting) {
  const auto data = std::make_unique<crypt_data>();
  const char* const made = crypt_rn(password.RevealText(), setting.c_str(), data.get(),
                                    static_cast<int>(sizeof(crypt_data)));
  std::string hash = made == nullptr ? std::string() : std::string(made);
  Wipe(reinterpret_cast<char*>(data.get()), sizeof(crypt_data));
  return hash;
}

bool LooksLikeBcrypt(std::string_view hash) {
  return hash.size() == 60 && hash.substr(0, 2) == "$2" && hash[3] == '$';
}

Secret MakeLetters(const RandomBytes& random) {
  std::string letters;
  // The second half's bytes; 52 does not divide 256, which costs a quarter of a bit a letter.
  for (size_t i = 0; i < kTokenLetters; ++i) {
    letters.push_back(kLetters[random[16 + i] % kLetters.size()]);
  }
  Secret secret(letters);
  Wipe(letters.data(), letters.size());
  return secret;
}

}  // namespace

void Wipe(char* at, size_t size) { OPENSSL_cleanse(at, size); }

bool HashablePassword(std::string_view password) {
  return password.size() <= kPasswordBytesMax && password.find('\0') == std::string_view::npos;
}

PasswordOutcome RunPasswordJob(const PasswordJob& job, const TokenSigner* signer,
                               int64_t unix_seconds, const RandomBytes& random) {
  PasswordOutcome outcome;
  outcome.id = job.id;
  if (job.kind == PasswordJob::Kind::kHash) {
    outcome.hash = Bcrypt(job.password, MakeSalt(job.cost, random));
    outcome.ok = LooksLikeBcrypt(outcome.hash);
    return outcome;
  }
  const bool known = LooksLikeBcrypt(job.hash);
  const std::string computed = Bcrypt(job.password, known ? job.hash : MakeSalt(job.cost, random));
  outcome.ok = known && HashablePassword(job.password.Reveal()) &&
               computed.size() == job.hash.size() &&
               CRYPTO_memcmp(computed.data(), job.hash.data(), computed.size()) == 0;
  if (!outcome.ok) return outcome;
  outcome.letters = MakeLetters(random);
  if (signer != nullptr) {
    outcome.signed_token = Secret(signer->Sign(job.user, job.revision, unix_seconds));
    outcome.ok = !outcome.signed_token.empty();
  }
  return outcome;
}

}  // namespace conclave::auth
