// SimpleTokens: the tokens of users who have logged in, as etcd's simple provider has them.
//
// A token is 16 letters, a dot, and the index of the log's entry that assigned it. The entry holds
// the letters' SHA-256 only, so neither the log nor this table is of use to a thief. Every member
// learns of a token when it applies the entry. Its time begins anew with every use, member by
// member; so it is not part of the replicated state, and a member that starts anew knows none.
//
// Thread: its owner's. Limits: kTokensMax; the oldest makes room.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/btree_map.h"
#include "conclave/base/time.h"

namespace conclave::auth {

using TokenDigest = std::array<uint8_t, 32>;
[[nodiscard]] TokenDigest DigestOf(std::string_view letters);

class SimpleTokens {
 public:
  static constexpr size_t kTokensMax = 100'000;

  explicit SimpleTokens(Duration time_to_live) : time_to_live_(time_to_live) {}

  // Index grows from call to call.
  void Assign(uint64_t index, const TokenDigest& digest, std::string user, Instant now);

  // The index in a text that has a simple token's form.
  [[nodiscard]] static std::optional<uint64_t> IndexOf(std::string_view token);
  // Whose token it is; null if it is nobody's, or no longer. Valid until the next call. A use
  // prolongs it.
  [[nodiscard]] const std::string* Use(std::string_view token, Instant now);

  void ForgetUser(std::string_view user);
  void Clear() { tokens_.clear(); }
  size_t size() const { return tokens_.size(); }

 private:
  struct Token {
    TokenDigest digest{};
    std::string user;
    Instant expires;
  };

  void DropExpired(Instant now);

  const Duration time_to_live_;
  absl::btree_map<uint64_t, Token> tokens_;  // by index
  uint64_t next_look_ = 0;                   // for what has expired
};

}  // namespace conclave::auth
