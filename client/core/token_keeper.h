// TokenKeeper: the token of a client with a user and a password. Every call and stream of the
// client carries it (Transport::SetToken).
//
// The first one is asked for at once; until it is there, calls and streams wait. When a server
// refuses the token (it has expired, or users and roles have changed), it is dropped and asked for
// anew, once for however many calls were refused with it. A server without authentication needs
// none: then nothing is carried.
//
// A refused password is asked again after a pause that grows, so that streams come back when the
// password is set right; calls in between get the refusal.
//
// Thread: the engine's.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/client/core/judge.h"

namespace conclave {

class Engine;

class TokenKeeper {
 public:
  TokenKeeper(Engine& engine, std::string user, std::string password)
      : engine_(engine), user_(std::move(user)), password_(std::move(password)) {}

  void Start() { Ask(); }
  bool ready() const { return state_ == State::kReady; }
  // Not OK: the server does not take the password; nothing is under way now.
  absl::Status refusal() const { return state_ == State::kRefused ? refusal_ : absl::OkStatus(); }
  // Grows with every token.
  uint64_t generation() const { return generation_; }
  // What was sent with that generation's token was refused for it.
  void Refused(uint64_t generation);

  // True if a server refuses a call or a stream for its token, so that another one may help. It has
  // done nothing then.
  static bool IsTokenError(std::string_view server_text);

 private:
  enum class State : uint8_t { kAsking, kReady, kRefused };

  void Ask();
  void OnAnswer(const absl::StatusOr<std::string>& bytes);

  Engine& engine_;
  const std::string user_;
  const std::string password_;
  State state_ = State::kAsking;
  bool asking_ = false;
  uint64_t generation_ = 0;
  absl::Status refusal_;
  int refusals_ = 0;
};

}  // namespace conclave
