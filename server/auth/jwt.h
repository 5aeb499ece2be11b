// JSON web tokens (RFC 7519, compact JWS of RFC 7515) that say a user's name and the auth revision
// as of which he has logged in. Any member, and whoever has the public key, checks them without
// asking anybody.
//
// Methods: RS256 RS384 RS512, PS256 PS384 PS512, ES256 ES384 ES512, EdDSA, HS256 HS384 HS512. A
// token of another method than the configured one is refused, "none" too.
//
// Claims: username, revision, exp (seconds since 1970; a token without it is refused).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/auth/store.h"

namespace conclave::auth {

inline constexpr Duration kJwtTimeToLiveDefault = std::chrono::minutes(5);
inline constexpr size_t kJwtBytesMax = 8 << 10;  // longer ones are none of ours

// What --auth-token=jwt,... says: "pub-key=F,priv-key=F,sign-method=M,ttl=D". The keys are named,
// not read. InvalidArgument names what is wrong.
struct JwtSpec {
  std::string method;
  std::string public_key_file;
  std::string private_key_file;  // of HS*: the secret's file
  Duration time_to_live = kJwtTimeToLiveDefault;
};
[[nodiscard]] absl::StatusOr<JwtSpec> ParseJwtSpec(std::string_view text);

class JwtKey;  // of OpenSSL's

class TokenVerifier {
 public:
  explicit TokenVerifier(std::shared_ptr<const JwtKey> key) : key_(std::move(key)) {}

  struct Claims {
    Identity who;
    int64_t expires = 0;  // seconds since 1970
  };
  // None if it is not ours, or has expired.
  [[nodiscard]] std::optional<Claims> Verify(std::string_view token, int64_t unix_seconds) const;

 private:
  std::shared_ptr<const JwtKey> key_;
};

class TokenSigner {
 public:
  TokenSigner(std::shared_ptr<const JwtKey> key, Duration time_to_live)
      : key_(std::move(key)), time_to_live_(time_to_live) {}

  // Empty if OpenSSL fails.
  [[nodiscard]] std::string Sign(std::string_view user, uint64_t revision,
                                 int64_t unix_seconds) const;

 private:
  std::shared_ptr<const JwtKey> key_;
  Duration time_to_live_;
};

struct JwtProvider {
  std::shared_ptr<const TokenVerifier> verifier;
  std::shared_ptr<const TokenSigner> signer;  // null: there is only a public key
};
// `public_key` and `private_key` are the files' contents: PEM, or the secret itself for HS*. Either
// may be empty; a private key serves for both.
[[nodiscard]] absl::StatusOr<JwtProvider> MakeJwtProvider(std::string_view method,
                                                          std::string_view public_key,
                                                          std::string_view private_key,
                                                          Duration time_to_live);

}  // namespace conclave::auth
