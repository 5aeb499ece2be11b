// Passwords: hashing and comparing them by bcrypt, which takes long on purpose (some 50 ms at cost
// 10). So it is a job that the core hands out and gets an answer to, and never part of applying a
// command.
//
// A job is a function of its fields and the random bytes. A password that is compared with nothing
// (there is no such user) takes as long as one that is wrong.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "conclave/server/auth/secret.h"

namespace conclave::auth {

class TokenSigner;

inline constexpr int kBcryptCostMin = 4;
inline constexpr int kBcryptCostMax = 31;
inline constexpr int kBcryptCostDefault = 10;
// bcrypt looks at no more of it.
inline constexpr size_t kPasswordBytesMax = 72;
inline constexpr size_t kTokenLetters = 16;  // of a simple token, before the dot

struct PasswordJob {
  enum class Kind : uint8_t { kHash, kCompare };

  uint64_t id = 0;  // comes back in the outcome
  Kind kind = Kind::kHash;
  Secret password;
  std::string hash;  // kCompare: what it is compared with; empty: with nothing
  int cost = kBcryptCostDefault;
  // kCompare: what a signed token is to say.
  std::string user;
  uint64_t revision = 0;
};

struct PasswordOutcome {
  uint64_t id = 0;
  bool ok = false;   // hashed; equal
  std::string hash;  // kHash
  // kCompare and equal: for whichever kind of token is in use.
  Secret letters;
  Secret signed_token;
};

using RandomBytes = std::array<uint8_t, 32>;

// `signer` may be null: then no token is signed. `unix_seconds` dates the token.
[[nodiscard]] PasswordOutcome RunPasswordJob(const PasswordJob& job, const TokenSigner* signer,
                                             int64_t unix_seconds, const RandomBytes& random);

// True if bcrypt sees the whole of it: not too long, no zero byte inside.
[[nodiscard]] bool HashablePassword(std::string_view password);

}  // namespace conclave::auth
