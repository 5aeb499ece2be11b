#include "conclave/server/node/auth_desk.h"

#include <optional>

#include "conclave/api/wire/auth.h"
#include "conclave/base/check.h"

namespace conclave::node {
namespace {

// As HTTP clients like to write it.
std::string_view Bare(std::string_view token) {
  constexpr std::string_view kBearer = "Bearer ";
  return token.substr(0, kBearer.size()) == kBearer ? token.substr(kBearer.size()) : token;
}

}  // namespace

// ---- Who somebody is ----------------------------------------------------------------------------

bool AuthDesk::TooEarly(const CredentialsRef& shown, const apply::StateMachine& state) const {
  if (shown == nullptr || shown->server_itself || signs()) return false;
  const std::optional<uint64_t> index = auth::SimpleTokens::IndexOf(Bare(shown->token));
  return index.has_value() && *index > state.applied_index();
}

AuthDesk::Verdict AuthDesk::Identify(const CredentialsRef& shown, apply::StateMachine* state,
                                     Instant now, Duration elapsed, bool final) {
  const auto user = [&](std::string_view name) {
    return Verdict{.who = std::make_shared<const Asker>(
                       Asker{{std::string(name), state->auth().revision()}, shown})};
  };
  if (shown == nullptr) return {};
  if (shown->server_itself) return user(auth::kRoot);
  const std::string_view token = Bare(shown->token);
  if (token.empty()) {
    return shown->certificate_name.empty() ? Verdict{} : user(shown->certificate_name);
  }
  if (!signs()) {
    if (!final && TooEarly(shown, *state)) return {.too_early = true};
    const std::string* const name = state->tokens().Use(token, now);
    return name == nullptr ? Verdict{.error = &wire::kErrInvalidAuthToken} : user(*name);
  }
  const int64_t unix_seconds =
      shown->unix_seconds + std::chrono::duration_cast<std::chrono::seconds>(elapsed).count();
  auto known = verified_.find(std::string(token));
  if (known == verified_.end()) {
    const auto claims = options_.verifier->Verify(token, unix_seconds);
    if (!claims.has_value()) return {.error = &wire::kErrInvalidAuthToken};
    if (verified_.size() >= kVerifiedMax) verified_.clear();
    known = verified_.emplace(std::string(token), *claims).first;
  }
  if (known->second.expires <= unix_seconds) {
    verified_.erase(known);
    return {.error = &wire::kErrInvalidAuthToken};
  }
  return {.who = std::make_shared<const Asker>(Asker{known->second.who, shown})};
}

auth::Identity AuthDesk::Present(const AskerRef& who, const apply::StateMachine& state) {
  if (who == nullptr) return {};
  auth::Identity present = who->identity;
  if (!present.bound) present.revision = state.auth().revision();
  return present;
}

uint64_t AuthDesk::Park(UnaryCall call) {
  parked_[++last_parked_] = std::move(call);
  return last_parked_;
}

bool AuthDesk::Unpark(uint64_t id, UnaryCall* call) {
  const auto found = parked_.find(id);
  if (found == parked_.end()) return false;
  *call = std::move(found->second);
  parked_.erase(found);
  return true;
}

std::vector<UnaryCall> AuthDesk::TakeParked() {
  std::vector<UnaryCall> calls;
  for (auto& [id, call] : parked_) calls.push_back(std::move(call));
  parked_.clear();
  return calls;
}

// ---- Passwords ----------------------------------------------------------------------------------

void AuthDesk::StartJob(PasswordCall call, const apply::StateMachine& state, Effects* effects) {
  auth::PasswordJob job;
  job.id = ++last_job_;
  job.cost = options_.bcrypt_cost;
  if (call.method == Method::kAuthenticate) {
    wire::AuthenticateRequest request;
    CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
    const auth::User* const user = state.auth().FindUser(request.name);
    call.auth_revision = state.auth().revision();
    call.no_password_user = user != nullptr && user->no_password;
    job.kind = auth::PasswordJob::Kind::kCompare;
    job.password = auth::Secret(request.password);
    if (user != nullptr) job.hash = user->password_hash;
    job.user = std::string(request.name);
    job.revision = call.auth_revision;
  } else if (call.method == Method::kUserAdd) {
    wire::AuthUserAddRequest request;
    CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
    job.password = auth::Secret(request.password);
  } else {
    wire::AuthUserChangePasswordRequest request;
    CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
    job.password = auth::Secret(request.password);
  }
  hashing_[job.id] = std::move(call);
  effects->password_jobs.push_back(std::move(job));
}

bool AuthDesk::TakeJob(uint64_t job, PasswordCall* call) {
  const auto found = hashing_.find(job);
  if (found == hashing_.end()) return false;
  *call = std::move(found->second);
  hashing_.erase(found);
  return true;
}

void AuthDesk::AwaitEntry(uint64_t sequence, PasswordCall call) {
  awaited_[sequence] = std::move(call);
}

bool AuthDesk::TakeEntry(uint64_t sequence, PasswordCall* call) {
  const auto found = awaited_.find(sequence);
  if (found == awaited_.end()) return false;
  *call = std::move(found->second);
  awaited_.erase(found);
  return true;
}

AskerRef AuthDesk::Ended(uint64_t sequence) {
  const auto found = on_behalf_.find(sequence);
  if (found == on_behalf_.end()) return nullptr;
  AskerRef who = std::move(found->second);
  on_behalf_.erase(found);
  return who;
}

void AuthDesk::Expire(Instant latest, EndedCall ended) {
  for (auto it = hashing_.begin(); it != hashing_.end();) {
    const PasswordCall& call = it->second;
    if (call.arrived > latest) {
      ++it;
      continue;
    }
    ended(call.call, call.method, call.arrived, call.request.size());
    it = hashing_.erase(it);
  }
  // The proposal's end was told to the proposal's waiter, which is the same call.
  for (auto it = awaited_.begin(); it != awaited_.end();) {
    it = it->second.arrived <= latest ? awaited_.erase(it) : std::next(it);
  }
}

}  // namespace conclave::node
