#include "conclave/server/auth/simple_tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "conclave/server/auth/password.h"

namespace conclave::auth {

TokenDigest DigestOf(std::string_view letters) {
  TokenDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(letters.data()), letters.size(), digest.data());
  return digest;
}

std::optional<uint64_t> SimpleTokens::IndexOf(std::string_view token) {
  if (token.size() < kTokenLetters + 2 || token[kTokenLetters] != '.') return std::nullopt;
  uint64_t index = 0;
  const std::string number(token.substr(kTokenLetters + 1));
  if (number.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(number, &index)) {
    return std::nullopt;
  }
  return index;
}

// Two looks for one new token: so the table holds hardly more than what lives.
void SimpleTokens::DropExpired(Instant now) {
  for (int i = 0; i < 2 && !tokens_.empty(); ++i) {
    auto token = tokens_.lower_bound(next_look_);
    if (token == tokens_.end()) token = tokens_.begin();
    next_look_ = token->first + 1;
    if (token->second.expires <= now) tokens_.erase(token);
  }
  if (tokens_.size() >= kTokensMax) tokens_.erase(tokens_.begin());
}

void SimpleTokens::Assign(uint64_t index, const TokenDigest& digest, std::string user,
                          Instant now) {
  DropExpired(now);
  tokens_[index] = {digest, std::move(user), now + time_to_live_};
}

const std::string* SimpleTokens::Use(std::string_view token, Instant now) {
  const std::optional<uint64_t> index = IndexOf(token);
  if (!index.has_value()) return nullptr;
  const auto found = tokens_.find(*index);
  if (found == tokens_.end()) return nullptr;
  const TokenDigest digest = DigestOf(token.substr(0, kTokenLetters));
  if (CRYPTO_memcmp(digest.data(), found->second.digest.data(), digest.size()) != 0) return nullptr;
  if (found->second.expires <= now) {
    tokens_.erase(found);
    return nullptr;
  }
  found->second.expires = now + time_to_live_;
  return &found->second.user;
}

void SimpleTokens::ForgetUser(std::string_view user) {
  for (auto token = tokens_.begin(); token != tokens_.end();) {
    token = token->second.user == user ? tokens_.erase(token) : std::next(token);
  }
}

}  // namespace conclave::auth
