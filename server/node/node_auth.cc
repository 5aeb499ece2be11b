// Who clients are, calls that have a password, and what is done again because users have changed.
#include <string>
#include <utility>

#include "conclave/api/wire/auth.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/node/node_impl.h"

namespace conclave::node {
namespace {

std::string_view Body(const UnaryCall& call) {
  return call.request.view().substr(kRequestHeadroom);
}

}  // namespace

// ---- Calls --------------------------------------------------------------------------------------

// True: go on, on behalf of *who. False: it is answered, or waits.
bool Node::Impl::Identify(UnaryCall& call, apply::Route route, bool final, AskerRef* who) {
  const auto refuse = [&](const wire::Error* error) {
    Reply(call.id, call.method, now_, call.request.size(), error, {});
    return false;
  };
  if (apply::NeedOf(call.method) == apply::Need::kNothing) return true;
  if (!final && auth_.TooEarly(call.credentials, *state_)) {
    REACHED("auth: a token is not known here yet");
    if (!auth_.can_park() || reads_.size() >= options_.pending_reads_max) {
      return refuse(&wire::kErrTooManyRequests);
    }
    reads_.Add({CallId(auth_.Park(std::move(call))), Method::kRange, kAwaitToken, {}, now_});
    return false;
  }
  if (!state_->auth().enabled()) return true;
  AuthDesk::Verdict verdict =
      auth_.Identify(call.credentials, state_.get(), now_, Duration::zero(), final);
  if (verdict.error != nullptr) return refuse(verdict.error);
  *who = std::move(verdict.who);
  // What neither the log nor a read will check is checked here.
  if (route == apply::Route::kNode) {
    const wire::Error* error =
        state_->CheckAccess(AuthDesk::Present(*who, *state_), call.method, Body(call));
    if (error != nullptr) return refuse(error);
  }
  return true;
}

void Node::Impl::TakeParked() {
  if (unparked_.empty() && !streams_unparked_) return;
  std::vector<UnaryCall> calls = std::exchange(unparked_, {});
  for (UnaryCall& call : calls) {
    const apply::RequestCheck check = state_->Check(call.method, Body(call));
    if (check.error != nullptr) {
      Reply(call.id, call.method, now_, call.request.size(), check.error, {});
      continue;
    }
    AskerRef who;
    if (Identify(call, check.route, /*final=*/true, &who)) {
      TakeChecked(call, check.route, std::move(who));
    }
  }
  if (std::exchange(streams_unparked_, false)) TakeParkedStreams();
  again_ = true;  // for what they have proposed and asked
}

bool Node::Impl::Denies(const ReadQueue::Read& read) {
  const wire::Error* error =
      state_->CheckAccess(AuthDesk::Present(read.who, *state_), read.method, read.request.view());
  if (error == nullptr) return false;
  REACHED("auth: a read is denied");
  if (read.tag == kRemoteTimeToLive) {
    AnswerRemote(read.call, error, {});
  } else {
    Reply(read.call, read.method, read.arrived, read.request.size(), error, {});
  }
  return true;
}

// The client's entry, in the name of the user that he is.
Bytes Node::Impl::OnBehalf(Bytes payload, Method method, uint64_t sequence,
                           const AskerRef& who) const {
  if (who == nullptr) return payload;
  return apply::EncodeOnBehalf(
      options_.id.value(), sequence,
      {AuthDesk::Present(who, *state_), method, payload.view().substr(apply::kCommandHeaderSize)});
}

// ---- Streams ------------------------------------------------------------------------------------

bool Node::Impl::Identify(StreamMessage& message, AskerRef* who, const wire::Error** refused) {
  const auto found = shown_streams_.find(message.id);
  if (found == shown_streams_.end()) return true;  // nobody
  ShownStream& stream = found->second;
  const auto wait = [&] {
    constexpr size_t kWaitingMax = 1'000;
    if (stream.waiting.size() < kWaitingMax) {
      stream.waiting.push_back(std::move(message));
      return;
    }
    const CallId id = message.id;
    shown_streams_.erase(found);
    if (watches_.Close(id) || leases_.Close(id) || downloads_.Close(id)) {
      FinishStream(id, &wire::kErrTooManyRequests);
    }
  };
  if (stream.awaits_token) {
    wait();
    return false;
  }
  if (auth_.TooEarly(stream.shown, *state_)) {
    REACHED("auth: a stream waits for its token");
    stream.awaits_token = true;
    wait();
    reads_.Add({CallId(), Method::kRange, kAwaitToken, {}, now_});  // no call has id 0
    return false;
  }
  if (!state_->auth().enabled()) return true;
  AuthDesk::Verdict verdict =
      auth_.Identify(stream.shown, state_.get(), now_, now_ - stream.since, /*final=*/true);
  *who = std::move(verdict.who);
  *refused = verdict.error;
  return true;
}

// A read round is over, for better or worse: whoever waits for a token waits no longer.
void Node::Impl::TakeParkedStreams() {
  std::vector<CallId> waiting;
  for (const auto& [id, stream] : shown_streams_) {
    if (stream.awaits_token) waiting.push_back(id);
  }
  for (const CallId id : waiting) {
    const auto found = shown_streams_.find(id);
    if (found == shown_streams_.end()) continue;
    found->second.awaits_token = false;
    const bool half_closed = found->second.half_closed;
    std::vector<StreamMessage> messages = std::exchange(found->second.waiting, {});
    for (StreamMessage& message : messages) {
      AskerRef who;
      const wire::Error* refused = nullptr;
      if (state_->auth().enabled()) {
        const auto again = shown_streams_.find(id);
        if (again == shown_streams_.end()) break;
        AuthDesk::Verdict verdict = auth_.Identify(again->second.shown, state_.get(), now_,
                                                   now_ - again->second.since, /*final=*/true);
        who = std::move(verdict.who);
        refused = verdict.error;
      }
      TakeMessage(message, who, refused);
    }
    if (half_closed) leases_.HalfClosed(id, effects_);
  }
}

const wire::Error* Node::Impl::MayStillWatch(const AskerRef& who, std::string_view key,
                                             std::string_view range_end) const {
  auth::Identity present = who == nullptr ? auth::Identity() : who->identity;
  present.revision = state_->auth().revision();  // what matters is what he may do now
  return state_->CheckAccess(present, {apply::Access::Kind::kRead, key, range_end});
}

// Watchers are judged again, some each turn, when users have changed. True if some are left.
bool Node::Impl::CheckWatchersAgain() {
  constexpr size_t kWatchersPerTurnMax = 2000;  // some 0.5 ms
  const auth::AuthStore& store = state_->auth();
  if (store.revision() != watchers_checked_at_ || store.enabled() != watchers_checked_enabled_) {
    watchers_checked_at_ = store.revision();
    watchers_checked_enabled_ = store.enabled();
    watches_.BeginCheck(store.enabled() && !MUTANT("watches-outlive-permissions"));
  }
  return watches_.CheckAgain(kWatchersPerTurnMax, [this](const AskerRef& who, std::string_view key,
                                                         std::string_view range_end) {
    return MayStillWatch(who, key, range_end);
  });
}

// ---- Passwords ----------------------------------------------------------------------------------

void Node::Impl::StartPassword(ReadQueue::Read& read) {
  const auto refuse = [&](const wire::Error& error) {
    Reply(read.call, read.method, read.arrived, read.request.size(), &error, {});
  };
  AuthDesk::PasswordCall call{.call = read.call,
                              .method = read.method,
                              .who = std::move(read.who),
                              .request = std::move(read.request),
                              .arrived = read.arrived};
  if (call.method == Method::kAuthenticate && !state_->auth().enabled()) {
    return refuse(wire::kErrAuthNotEnabled);
  }
  if (call.method == Method::kUserAdd) {
    wire::AuthUserAddRequest request;
    if (!wire::Parse(call.request.view(), &request)) return refuse(wire::kErrMalformed);
    // bcrypt is not worked for what is refused anyway.
    if (request.name.empty()) return refuse(wire::kErrUserEmpty);
    if (state_->auth().FindUser(request.name) != nullptr) return refuse(wire::kErrUserExists);
    if (request.no_password) return ProposeHash(std::move(call), "");
  } else if (call.method == Method::kUserChangePassword) {
    wire::AuthUserChangePasswordRequest request;
    if (!wire::Parse(call.request.view(), &request)) return refuse(wire::kErrMalformed);
    if (state_->auth().FindUser(request.name) == nullptr) return refuse(wire::kErrUserNotFound);
  }
  if (auth_.full()) return refuse(wire::kErrTooManyRequests);
  auth_.StartJob(std::move(call), *state_, effects_);
}

void Node::Impl::Take(std::unique_ptr<auth::PasswordOutcome>& outcome) {
  AuthDesk::PasswordCall call;
  if (!auth_.TakeJob(outcome->id, &call)) return;
  const auto refuse = [&](const wire::Error& error) {
    Reply(call.call, call.method, call.arrived, call.request.size(), &error, {});
  };
  if (call.method != Method::kAuthenticate) {
    if (!outcome->ok) return refuse(wire::kErrBadPassword);
    return ProposeHash(std::move(call), std::move(outcome->hash));
  }
  if (call.no_password_user) return refuse(wire::kErrNoPasswordUser);
  if (!outcome->ok) return refuse(wire::kErrAuthFailed);
  if (auth_.signs() && outcome->signed_token.empty()) return refuse(wire::kErrAuthUnavailable);
  call.letters = std::move(outcome->letters);
  call.signed_token = std::move(outcome->signed_token);
  ProposeLogin(std::move(call));
}

void Node::Impl::ProposeLogin(AuthDesk::PasswordCall call) {
  wire::AuthenticateRequest request;
  CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
  const uint64_t sequence = proposals_.next_sequence();
  apply::Login login{.user = request.name, .auth_revision = call.auth_revision};
  if (!auth_.signs()) login.token_digest = auth::DigestOf(call.letters.Reveal());
  const Waiter waiter{.method = call.method,
                      .call = call.call,
                      .arrived = call.arrived,
                      .bytes = call.request.size()};
  proposals_.Add(waiter, apply::EncodeLogin(options_.id.value(), sequence, login));
  auth_.AwaitEntry(sequence, std::move(call));
  again_ = true;
}

// Of a UserAdd or a UserChangePassword, whose password stays here.
void Node::Impl::ProposeHash(AuthDesk::PasswordCall call, std::string hash) {
  wire::Builder builder;
  builder.Extend(apply::kCommandHeaderSize);
  if (call.method == Method::kUserAdd) {
    wire::AuthUserAddRequest request;
    CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
    builder.AppendText(1, request.name);
    const size_t options = builder.BeginMessage(3);
    builder.AppendNumber(1, uint64_t{request.no_password});
    builder.EndMessage(options);
    builder.AppendText(4, hash);
  } else {
    wire::AuthUserChangePasswordRequest request;
    CONCLAVE_CHECK(wire::Parse(call.request.view(), &request), "a call that was not checked");
    builder.AppendText(1, request.name);
    builder.AppendText(3, hash);
  }
  const uint64_t sequence = proposals_.next_sequence();
  Bytes payload =
      state_->Prepare(call.method, builder.Take(), options_.id.value(), sequence, &prng_);
  const Waiter waiter{.method = call.method,
                      .call = call.call,
                      .arrived = call.arrived,
                      .bytes = call.request.size()};
  proposals_.Add(waiter, OnBehalf(std::move(payload), call.method, sequence, call.who));
  if (call.who != nullptr) auth_.Proposed(sequence, std::move(call.who));
  again_ = true;
}

// ---- Entries that were applied ------------------------------------------------------------------

bool Node::Impl::BeginsAgain(const Waiter& waiter, uint64_t sequence, const Bytes& payload,
                             apply::ApplyResult* result) {
  const bool in_time = now_ - waiter.arrived < patience_;
  const bool outdated = result->error == &wire::kErrAuthOldRevision && in_time;
  if (waiter.method == Method::kAuthenticate) {
    AuthDesk::PasswordCall call;
    if (!auth_.TakeEntry(sequence, &call)) return false;
    if (outdated) {
      REACHED("auth: a login begins again, for users have changed");
      reads_.Add({call.call, call.method, kClientRead, std::move(call.request), call.arrived});
      return true;
    }
    if (result->error != nullptr) return false;
    const auth::Secret& token = auth_.signs() ? call.signed_token : call.letters;
    const std::string suffix = auth_.signs() ? "" : "." + std::to_string(state_->applied_index());
    result->response = wire::EncodeAuthenticate(state_->Header(raft_.term().value()),
                                                std::string(token.Reveal()) + suffix);
    return false;
  }
  const AskerRef who = auth_.Ended(sequence);
  if (!outdated || who == nullptr || who->identity.bound) return false;
  // Users have changed since it was proposed. Whoever has shown something that is still good, and
  // names no revision by itself, is asked for no second try.
  const auto header = apply::ReadCommandHeader(payload.view());
  apply::OnBehalf command;
  if (!header.has_value() || !header->Is(apply::CommandKind::kOnBehalf) ||
      !apply::DecodeOnBehalf(payload.view().substr(apply::kCommandHeaderSize), &command)) {
    return false;
  }
  const AuthDesk::Verdict verdict =
      auth_.Identify(who->shown, state_.get(), now_, Duration::zero(), /*final=*/true);
  if (verdict.error != nullptr) {
    result->error = verdict.error;
    return false;
  }
  if (verdict.who == nullptr) return false;
  command.who = verdict.who->identity;
  REACHED("auth: an entry begins again, for users have changed");
  const uint64_t again = proposals_.next_sequence();
  proposals_.Add(waiter, apply::EncodeOnBehalf(options_.id.value(), again, command));
  auth_.Proposed(again, who);
  again_ = true;
  return true;
}

void Node::Impl::StopAuth() {
  auth_.Expire(kNever, [this](CallId call, Method method, Instant arrived, size_t bytes) {
    Reply(call, method, arrived, bytes, &wire::kErrStopped, {});
  });
  for (UnaryCall& call : auth_.TakeParked()) {
    Reply(call.id, call.method, now_, call.request.size(), &wire::kErrStopped, {});
  }
}

}  // namespace conclave::node
