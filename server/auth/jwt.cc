#include "conclave/server/auth/jwt.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/server/auth/secret.h"

namespace conclave::auth {
namespace {

enum class Family : uint8_t { kHmac, kRsa, kPss, kEcdsa, kEdDsa };

struct Method {
  std::string_view name;
  Family family;
  const EVP_MD* (*digest)();  // null: the method has its own
  size_t half;                // ECDSA: bytes of r, and of s
  std::string_view curve;     // ECDSA
};

constexpr Method kMethods[] = {
    {"HS256", Family::kHmac, EVP_sha256, 0, ""},
    {"HS384", Family::kHmac, EVP_sha384, 0, ""},
    {"HS512", Family::kHmac, EVP_sha512, 0, ""},
    {"RS256", Family::kRsa, EVP_sha256, 0, ""},
    {"RS384", Family::kRsa, EVP_sha384, 0, ""},
    {"RS512", Family::kRsa, EVP_sha512, 0, ""},
    {"PS256", Family::kPss, EVP_sha256, 0, ""},
    {"PS384", Family::kPss, EVP_sha384, 0, ""},
    {"PS512", Family::kPss, EVP_sha512, 0, ""},
    {"ES256", Family::kEcdsa, EVP_sha256, 32, "prime256v1"},
    {"ES384", Family::kEcdsa, EVP_sha384, 48, "secp384r1"},
    {"ES512", Family::kEcdsa, EVP_sha512, 66, "secp521r1"},
    {"EdDSA", Family::kEdDsa, nullptr, 0, ""},
};

const Method* FindMethod(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(ECDSA_SIG* signature) const { ECDSA_SIG_free(signature); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

const unsigned char* Unsigned(std::string_view bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

std::string EncodeBase64(std::string_view bytes) {
  std::string encoded = absl::WebSafeBase64Escape(std::string(bytes));
  while (!encoded.empty() && encoded.back() == '=') encoded.pop_back();
  return encoded;
}

std::optional<std::string> DecodeBase64(std::string_view text) {
  if (text.find_first_of("=+/ \t\r\n") != std::string_view::npos) return std::nullopt;
  std::string decoded;
  if (!absl::WebSafeBase64Unescape(std::string(text), &decoded)) return std::nullopt;
  return decoded;
}

// JOSE writes r and s one behind the other, OpenSSL a DER sequence of both.
std::string JoseOfDer(std::string_view der, size_t half) {
  const unsigned char* at = Unsigned(der);
  const Owned<ECDSA_SIG> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  std::string jose(2 * half, '\0');
  auto* const out = reinterpret_cast<unsigned char*>(jose.data());
  const int size = static_cast<int>(half);
  if (!signature || BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out, size) != size ||
      BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out + half, size) != size) {
    return {};
  }
  return jose;
}

std::string DerOfJose(std::string_view jose, size_t half) {
  if (jose.size() != 2 * half) return {};
  const Owned<ECDSA_SIG> signature(ECDSA_SIG_new());
  BIGNUM* const r = BN_bin2bn(Unsigned(jose), static_cast<int>(half), nullptr);
  BIGNUM* const s = BN_bin2bn(Unsigned(jose) + half, static_cast<int>(half), nullptr);
  if (!signature || r == nullptr || s == nullptr || ECDSA_SIG_set0(signature.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return {};
  }
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(signature.get(), &der);
  if (size <= 0) return {};
  std::string text(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return text;
}

}  // namespace

// A method, and the key for it: only the public half, or both, or the secret of HS*.
class JwtKey {
 public:
  const Method* method = nullptr;
  Secret secret;
  Owned<EVP_PKEY> key;
  std::string header;  // of every token, encoded

  // Empty on failure.
  std::string Sign(std::string_view text) const;
  bool Verify(std::string_view text, std::string_view signature) const;

 private:
  std::string Hmac(std::string_view text) const;
  bool Prepare(EVP_PKEY_CTX* context) const;
};

std::string JwtKey::Hmac(std::string_view text) const {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const std::string_view bytes = secret.Reveal();
  if (HMAC(method->digest(), bytes.data(), static_cast<int>(bytes.size()), Unsigned(text),
           text.size(), out, &size) == nullptr) {
    return {};
  }
  return {reinterpret_cast<const char*>(out), size};
}

bool JwtKey::Prepare(EVP_PKEY_CTX* context) const {
  if (method->family != Family::kPss) return true;
  return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) > 0 &&
         EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) > 0;
}

std::string JwtKey::Sign(std::string_view text) const {
  if (method->family == Family::kHmac) return Hmac(text);
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* settings = nullptr;
  const EVP_MD* const digest = method->digest == nullptr ? nullptr : method->digest();
  size_t size = 0;
  if (!context || EVP_DigestSignInit(context.get(), &settings, digest, nullptr, key.get()) != 1 ||
      !Prepare(settings) ||
      EVP_DigestSign(context.get(), nullptr, &size, Unsigned(text), text.size()) != 1) {
    return {};
  }
  std::string signature(size, '\0');
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     Unsigned(text), text.size()) != 1) {
    return {};
  }
  signature.resize(size);
  return method->family == Family::kEcdsa ? JoseOfDer(signature, method->half) : signature;
}

bool JwtKey::Verify(std::string_view text, std::string_view signature) const {
  if (method->family == Family::kHmac) {
    const std::string right = Hmac(text);
    return !right.empty() && right.size() == signature.size() &&
           CRYPTO_memcmp(right.data(), signature.data(), right.size()) == 0;
  }
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* settings = nullptr;
  const EVP_MD* const digest = method->digest == nullptr ? nullptr : method->digest();
  std::string der;
  if (method->family == Family::kEcdsa) {
    der = DerOfJose(signature, method->half);
    signature = der;
  }
  return context && !signature.empty() &&
         EVP_DigestVerifyInit(context.get(), &settings, digest, nullptr, key.get()) == 1 &&
         Prepare(settings) &&
         EVP_DigestVerify(context.get(), Unsigned(signature), signature.size(), Unsigned(text),
                          text.size()) == 1;
}

// ---- Tokens -------------------------------------------------------------------------------------

std::string TokenSigner::Sign(std::string_view user, uint64_t revision,
                              int64_t unix_seconds) const {
  nlohmann::json claims;
  claims["username"] = std::string(user);
  claims["revision"] = revision;
  claims["exp"] =
      unix_seconds + std::chrono::duration_cast<std::chrono::seconds>(time_to_live_).count();
  std::string token = absl::StrCat(
      key_->header, ".",
      EncodeBase64(claims.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  const std::string signature = key_->Sign(token);
  if (signature.empty()) return {};
  return absl::StrCat(token, ".", EncodeBase64(signature));
}

std::optional<TokenVerifier::Claims> TokenVerifier::Verify(std::string_view token,
                                                           int64_t unix_seconds) const {
  if (token.size() > kJwtBytesMax) return std::nullopt;
  const size_t first = token.find('.');
  if (first == std::string_view::npos) return std::nullopt;
  const size_t second = token.find('.', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto header = DecodeBase64(token.substr(0, first));
  const auto body = DecodeBase64(token.substr(first + 1, second - first - 1));
  const auto signature = DecodeBase64(token.substr(second + 1));
  if (!header || !body || !signature) return std::nullopt;
  const auto said = nlohmann::json::parse(*header, nullptr, /*allow_exceptions=*/false);
  if (!said.is_object() || !said.contains("alg") ||
      said["alg"] != std::string(key_->method->name)) {
    return std::nullopt;
  }
  if (!key_->Verify(token.substr(0, second), *signature)) return std::nullopt;
  const auto claims = nlohmann::json::parse(*body, nullptr, /*allow_exceptions=*/false);
  if (!claims.is_object() || !claims.contains("username") || !claims["username"].is_string() ||
      !claims.contains("revision") || !claims["revision"].is_number_unsigned() ||
      !claims.contains("exp") || !claims["exp"].is_number()) {
    return std::nullopt;
  }
  Claims result;
  result.who.user = claims["username"].get<std::string>();
  result.who.revision = claims["revision"].get<uint64_t>();
  result.who.bound = true;
  const double expires = claims["exp"].get<double>();
  if (!(expires > static_cast<double>(unix_seconds)) || expires > 1e15) return std::nullopt;
  result.expires = static_cast<int64_t>(expires);
  return result;
}

// ---- Keys ---------------------------------------------------------------------------------------

namespace {

Owned<EVP_PKEY> ReadKey(std::string_view pem, bool is_private) {
  const Owned<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (!bio) return nullptr;
  // No callback for a passphrase: an encrypted key is refused instead of asking a terminal.
  constexpr auto kNoPassphrase = [](char*, int, int, void*) { return -1; };
  return Owned<EVP_PKEY>(is_private
                             ? PEM_read_bio_PrivateKey(bio.get(), nullptr, kNoPassphrase, nullptr)
                             : PEM_read_bio_PUBKEY(bio.get(), nullptr, kNoPassphrase, nullptr));
}

// A key of another kind would be used for a method that it was not made for.
bool Fits(EVP_PKEY* key, const Method& method) {
  switch (method.family) {
    case Family::kHmac:
      return false;
    case Family::kRsa:
      return EVP_PKEY_is_a(key, "RSA") == 1;
    case Family::kPss:
      return EVP_PKEY_is_a(key, "RSA") == 1 || EVP_PKEY_is_a(key, "RSA-PSS") == 1;
    case Family::kEdDsa:
      return EVP_PKEY_is_a(key, "ED25519") == 1;
    case Family::kEcdsa: {
      char curve[64];
      size_t size = 0;
      return EVP_PKEY_is_a(key, "EC") == 1 &&
             EVP_PKEY_get_group_name(key, curve, sizeof curve, &size) == 1 &&
             std::string_view(curve, size) == method.curve;
    }
  }
  return false;
}

absl::StatusOr<std::shared_ptr<JwtKey>> LoadKey(const Method& method, std::string_view bytes,
                                                bool is_private) {
  auto key = std::make_shared<JwtKey>();
  key->method = &method;
  key->header =
      EncodeBase64(absl::StrCat("{\"alg\":\"", std::string(method.name), "\",\"typ\":\"JWT\"}"));
  if (method.family == Family::kHmac) {
    key->secret = Secret(bytes);
    return key;
  }
  key->key = ReadKey(bytes, is_private);
  if (!key->key && !is_private) key->key = ReadKey(bytes, true);
  if (!key->key) {
    return absl::InvalidArgumentError(
        absl::StrCat(is_private ? "priv-key" : "pub-key", " holds no key in PEM form"));
  }
  if (!Fits(key->key.get(), method)) {
    return absl::InvalidArgumentError(absl::StrCat(is_private ? "priv-key" : "pub-key",
                                                   " is no key for sign-method ",
                                                   std::string(method.name)));
  }
  return key;
}

}  // namespace

absl::StatusOr<JwtProvider> MakeJwtProvider(std::string_view method_name,
                                            std::string_view public_key,
                                            std::string_view private_key, Duration time_to_live) {
  const Method* const method = FindMethod(method_name);
  if (method == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("sign-method \"", std::string(method_name),
                     "\" must be one of RS256, RS384, RS512, PS256, "
                     "PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384, HS512"));
  }
  JwtProvider provider;
  std::shared_ptr<JwtKey> verifying;
  if (!private_key.empty()) {
    CONCLAVE_ASSIGN_OR_RETURN(verifying, LoadKey(*method, private_key, true));
    provider.signer = std::make_shared<TokenSigner>(verifying, time_to_live);
  }
  if (!public_key.empty() && method->family != Family::kHmac) {
    CONCLAVE_ASSIGN_OR_RETURN(std::shared_ptr<JwtKey> alone, LoadKey(*method, public_key, false));
    if (verifying != nullptr && EVP_PKEY_eq(alone->key.get(), verifying->key.get()) != 1) {
      return absl::InvalidArgumentError("pub-key and priv-key do not belong together");
    }
    verifying = std::move(alone);
  }
  if (verifying == nullptr) {
    return absl::InvalidArgumentError(method->family == Family::kHmac
                                          ? "HS methods need priv-key=FILE, which holds the secret"
                                          : "pub-key=FILE or priv-key=FILE is needed");
  }
  provider.verifier = std::make_shared<TokenVerifier>(std::move(verifying));
  return provider;
}

absl::StatusOr<JwtSpec> ParseJwtSpec(std::string_view text) {
  JwtSpec spec;
  if (text.empty()) return absl::InvalidArgumentError("jwt needs sign-method=..., and a key");
  for (const auto& piece : absl::StrSplit(std::string(text), ',')) {
    const std::string part(piece);
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (name == "pub-key") {
      spec.public_key_file = value;
    } else if (name == "priv-key") {
      spec.private_key_file = value;
    } else if (name == "sign-method") {
      spec.method = value;
    } else if (name == "ttl") {
      absl::Duration ttl;
      if (!absl::ParseDuration(value, &ttl) || ttl < absl::Seconds(1) ||
          ttl == absl::InfiniteDuration()) {
        return absl::InvalidArgumentError("ttl must be a duration of a second at least, like 5m");
      }
      spec.time_to_live = Duration(absl::ToInt64Nanoseconds(ttl));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" is none of pub-key=, priv-key=, sign-method=, ttl="));
    }
  }
  if (FindMethod(spec.method) == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("sign-method \"", spec.method, "\" is not known"));
  }
  return spec;
}

}  // namespace conclave::auth
