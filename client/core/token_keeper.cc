#include "conclave/client/core/token_keeper.h"

#include <utility>

#include "absl/strings/match.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr std::string_view kMethod = "/etcdserverpb.Auth/Authenticate";
constexpr Duration kAskTimeout = std::chrono::seconds(10);
constexpr Duration kAskAgainBase = std::chrono::seconds(1);
constexpr Duration kAskAgainCap = std::chrono::seconds(30);

constexpr absl::string_view kNotEnabled = "etcdserver: authentication is not enabled";
constexpr absl::string_view kTokenErrors[] = {
    "etcdserver: invalid auth token", "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",  // nothing was shown, and something is wanted now
};

}  // namespace

bool TokenKeeper::IsTokenError(std::string_view server_text) {
  const absl::string_view text(server_text.data(), server_text.size());
  for (const absl::string_view error : kTokenErrors) {
    if (absl::EndsWith(text, error)) return true;
  }
  return false;
}

void TokenKeeper::Refused(uint64_t generation) {
  if (generation != generation_ || state_ != State::kReady) return;  // a newer one is on its way
  state_ = State::kAsking;
  Ask();
}

void TokenKeeper::Ask() {
  if (std::exchange(asking_, true)) return;
  state_ = State::kAsking;
  engine_.transport().SetToken({});  // a bad one would be refused before the password is looked at
  etcdserverpb::AuthenticateRequest request;
  request.set_name(user_);
  request.set_password(password_);
  engine_.Call({.method = kMethod,
                .request = request.SerializeAsString(),
                .deadline = engine_.now() + kAskTimeout,
                .needs_token = false},
               [this](const absl::StatusOr<std::string>& bytes) { OnAnswer(bytes); });
}

void TokenKeeper::OnAnswer(const absl::StatusOr<std::string>& bytes) {
  asking_ = false;
  if (engine_.down()) return;
  etcdserverpb::AuthenticateResponse response;
  const auto detail = GetErrorDetail(bytes.status());
  const bool not_enabled = !bytes.ok() && detail.has_value() && detail->server_error == kNotEnabled;
  if (not_enabled || (bytes.ok() && response.ParseFromString(*bytes))) {
    refusals_ = 0;
    ++generation_;
    state_ = State::kReady;
    engine_.transport().SetToken(response.token());
    return engine_.OnToken(absl::OkStatus());
  }
  if (!bytes.ok() && IsRetryable(bytes.status())) return Ask();  // nobody answers: calls wait
  refusal_ = bytes.ok() ? absl::InternalError("the answer is not of the protocol") : bytes.status();
  state_ = State::kRefused;
  engine_.Log(LogLevel::kWarning,
              "the server does not take the user's name and password; trying again later");
  const Duration delay = FullJitter(refusals_++, kAskAgainBase, kAskAgainCap, engine_.prng());
  engine_.After(kAskAgainBase + delay, [this] { Ask(); });
  engine_.OnToken(refusal_);
}

}  // namespace conclave
