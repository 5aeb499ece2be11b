// AuthDesk: who this member's clients are, and the passwords that are being worked on.
//
// Identify turns what a client shows (a token, a verified certificate) into a user as of an auth
// revision. Whether that user may do what he asks is the state machine's to say: when an entry is
// applied, when a read is served, when a watcher is created.
//
// A call with a password takes a way of its own:
//
//   read round          so that users are known as they are now
//   password job        bcrypt, by whoever drives the node; its outcome comes back as an input
//   log                 the hash (UserAdd, UserChangePassword), or that the password was right as
//   of
//                       an auth revision (Authenticate); never the password
//
// If anything about users has changed between the comparing and the entry, Authenticate begins
// again.
//
// A simple token says in which entry it was assigned. If this member has not applied that entry
// yet, its call waits for one read round: what is not known after it was never assigned.
//
// Thread: the node's. Limits: kPasswordJobsMax, kParkedMax, kVerifiedMax; beyond the first two,
// `too many requests`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/bytes.h"
#include "conclave/base/time.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/auth/jwt.h"
#include "conclave/server/auth/password.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/who.h"

namespace conclave::node {

class AuthDesk {
 public:
  static constexpr size_t kPasswordJobsMax = 128;  // at some 50 ms each
  static constexpr size_t kParkedMax = 1'000;      // calls and streams that wait for their token
  static constexpr size_t kVerifiedMax = 4'096;    // JWTs whose signature is known to be right

  struct Options {
    std::shared_ptr<const auth::TokenVerifier> verifier;  // null: simple tokens
    int bcrypt_cost = auth::kBcryptCostDefault;
    Duration patience{};
  };
  AuthDesk(Options options, uint64_t first_job)
      : options_(std::move(options)), last_job_(first_job) {}

  // ---- Who somebody is

  struct Verdict {
    const wire::Error* error = nullptr;  // he shows something that is no good
    bool too_early = false;              // his token's entry is not applied here
    AskerRef who;
  };
  // Only while authentication is enabled. `shown` may be null; `final`: a read round has been
  // waited for. `elapsed`: since `shown` was dated.
  [[nodiscard]] Verdict Identify(const CredentialsRef& shown, apply::StateMachine* state,
                                 Instant now, Duration elapsed, bool final);
  // The token's entry has not been applied.
  [[nodiscard]] bool TooEarly(const CredentialsRef& shown, const apply::StateMachine& state) const;
  // As of the present auth revision, unless the client himself has named one.
  [[nodiscard]] static auth::Identity Present(const AskerRef& who,
                                              const apply::StateMachine& state);

  // ---- Calls that wait for their token, by the id under which a read round is asked for

  bool can_park() const { return parked_.size() < kParkedMax; }
  uint64_t Park(UnaryCall call);
  // False if there is none. Then it is parked no more.
  [[nodiscard]] bool Unpark(uint64_t id, UnaryCall* call);
  // All of them, at the end.
  std::vector<UnaryCall> TakeParked();

  // ---- Passwords

  struct PasswordCall {
    CallId call;
    Method method = Method::kAuthenticate;
    AskerRef who;  // who asks
    Bytes request;
    Instant arrived;
    // Authenticate, when the password was compared.
    uint64_t auth_revision = 0;
    bool no_password_user = false;
    auth::Secret letters;
    auth::Secret signed_token;
  };
  bool full() const { return hashing_.size() >= kPasswordJobsMax; }
  // Hands out the job for a checked UserAdd, UserChangePassword or Authenticate.
  void StartJob(PasswordCall call, const apply::StateMachine& state, Effects* effects);
  // False if nobody waits for this outcome any more.
  [[nodiscard]] bool TakeJob(uint64_t job, PasswordCall* call);
  // An Authenticate whose entry is on its way under `sequence`.
  void AwaitEntry(uint64_t sequence, PasswordCall call);
  [[nodiscard]] bool TakeEntry(uint64_t sequence, PasswordCall* call);
  bool signs() const { return options_.verifier != nullptr; }

  // ---- Commands on behalf of users: who they are, until it is applied

  void Proposed(uint64_t sequence, AskerRef who) { on_behalf_[sequence] = std::move(who); }
  [[nodiscard]] AskerRef Ended(uint64_t sequence);
  bool awaits_entries() const { return !on_behalf_.empty() || !awaited_.empty(); }

  // Ends what arrived at or before `latest`. `ended` is told of calls that nobody else answers.
  using EndedCall = absl::FunctionRef<void(CallId, Method, Instant arrived, size_t bytes)>;
  void Expire(Instant latest, EndedCall ended);
  bool idle() const { return hashing_.empty() && parked_.empty() && awaited_.empty(); }

 private:
  const Options options_;
  absl::btree_map<uint64_t, PasswordCall> hashing_;  // by job
  absl::btree_map<uint64_t, PasswordCall> awaited_;  // by sequence
  absl::btree_map<uint64_t, UnaryCall> parked_;
  absl::btree_map<uint64_t, AskerRef> on_behalf_;  // by sequence
  // Looked up, never walked.
  absl::flat_hash_map<std::string, auth::TokenVerifier::Claims> verified_;
  uint64_t last_job_;
  uint64_t last_parked_ = 0;
};

}  // namespace conclave::node
