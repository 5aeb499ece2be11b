// --help's group "Auth": users' tokens and passwords.
#include "absl/strings/str_cat.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"
#include "conclave/server/auth/jwt.h"
#include "conclave/server/auth/password.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetAuthToken(std::string_view value, Config* config) {
  constexpr std::string_view kJwt = "jwt,";
  if (value.substr(0, kJwt.size()) == kJwt || value == "jwt") {
    const auto spec = auth::ParseJwtSpec(value.substr(std::min(value.size(), kJwt.size())));
    if (!spec.ok()) return InvalidValue(std::string(spec.status().message()));
  } else if (value != "simple") {
    return InvalidValue(
        "must be simple, or jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m");
  }
  config->auth_token = std::string(value);
  return absl::OkStatus();
}

absl::Status SetTokenTtl(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t seconds, ParseInt(value, 1, 1'000'000'000, "300"));
  config->auth_token_ttl = std::chrono::seconds(seconds);
  return absl::OkStatus();
}

const FlagEntry kFlags[] = {
    Works("auth-token", kText, "simple",
          "kind of tokens: simple, or jwt,sign-method=M,pub-key=FILE,priv-key=FILE,ttl=5m",
          SetAuthToken),
    Works("auth-token-ttl", kNumber, "300", "seconds that a simple token lives from its last use",
          SetTokenTtl),
    Works("bcrypt-cost", kNumber, "10", "work of hashing a password: doubles with each step",
          SetNumber<&Config::bcrypt_cost, auth::kBcryptCostMin, auth::kBcryptCostMax>),
};

}  // namespace

FlagGroup AuthFlags() { return {"Auth", kFlags}; }

}  // namespace conclave::app
