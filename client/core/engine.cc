#include "conclave/client/core/engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"
#include "conclave/client/core/resuming_stream.h"
#include "conclave/client/core/token_keeper.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {
namespace {

constexpr Duration kRetryBase = std::chrono::milliseconds(25);
// After an outage all is back within a second: a pause takes half of it at most.
constexpr Duration kRetryCap = std::chrono::milliseconds(500);
constexpr int kAttemptDoublingsMax = 6;
constexpr Duration kOutageLogInterval = std::chrono::minutes(1);
// Ids of ended calls that may lie in a queue of held ones before it is swept.
constexpr size_t kEndedHeldMax = 1024;
// A call whose token is refused is sent again with another one, so many times.
constexpr int kTokenRefusalsMax = 2;

absl::Status Cancelled(bool outcome_unknown) {
  absl::Status status = absl::CancelledError("the call was cancelled");
  SetErrorDetail(status, {.outcome = outcome_unknown ? Outcome::kUnknown : Outcome::kNotExecuted});
  return status;
}

}  // namespace

Engine::Engine(EngineOptions options, Transport& transport)
    : options_(std::move(options)),
      transport_(transport),
      prng_(options_.seed),
      pool_(options_.endpoints, prng_),
      budget_(options_.retry_budget),
      watches_(std::make_unique<WatchMux>(*this)),
      leases_(std::make_unique<LeaseKeeper>(*this)) {
  if (options_.user.empty()) return;
  tokens_ = std::make_unique<TokenKeeper>(*this, options_.user, options_.password);
  Defer([this] {
    if (!down_) tokens_->Start();
  });
}

Engine::~Engine() = default;

void Engine::Advance(Instant now) {
  now_ = std::max(now_, now);
  RunDeferred();
  while (!timers_.empty() && timers_.begin()->first.first <= now_) {
    Work work = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    work();
    RunDeferred();
  }
}

Instant Engine::NextDeadline() const {
  if (!deferred_.empty()) return now_;
  return timers_.empty() ? kNever : timers_.begin()->first.first;
}

TimerId Engine::At(Instant when, Work work) {
  const TimerId id{when, next_id_++};
  if (!down_) timers_.emplace(id, std::move(work));
  return id;
}

void Engine::CancelTimer(TimerId& timer) {
  timers_.erase(timer);
  timer = TimerId{};
}

void Engine::Defer(Work work) { deferred_.push_back(std::move(work)); }

void Engine::RunDeferred() {
  while (!deferred_.empty()) {
    Work work = std::move(deferred_.front());
    deferred_.pop_front();
    work();
  }
}

void Engine::Log(LogLevel level, std::string_view line) const {
  if (options_.log) options_.log(level, line);
}

void Engine::OnNonsense(std::string_view what, std::string_view detail) {
  if (observer() != nullptr) observer()->OnNonsense(what);
  if (!nonsense_.insert(what).second) return;
  Log(LogLevel::kWarning, absl::StrCat("a server says what the protocol does not allow: ",
                                       absl::string_view(what.data(), what.size()), ": ",
                                       absl::string_view(detail.data(), detail.size()),
                                       " (ignored; further ones are counted, not logged)"));
}

void Engine::OnRevision(int64_t revision) {
  std::atomic<int64_t>& newest = options_.vitals->newest_revision;
  if (revision > newest.load(std::memory_order_relaxed) && revision <= kRevisionMax) {
    newest.store(revision, std::memory_order_relaxed);
  }
}

void Engine::Blame(size_t endpoint, std::string_view method, std::string_view why) {
  if (observer() != nullptr) observer()->OnFailover(method);
  const std::string_view name = pool_.NameOf(endpoint);
  if (!MUTANT("client-stays-with-who-fails")) pool_.Failed(endpoint, now_);
  const std::string line = absl::StrCat(absl::string_view(name.data(), name.size()), ": ",
                                        absl::string_view(why.data(), why.size()));
  const bool outage = !pool_.AnyHealthy(now_) &&
                      (outage_logged_ == Instant{} || now_ - outage_logged_ >= kOutageLogInterval);
  if (outage) outage_logged_ = now_;
  Log(outage ? LogLevel::kWarning : LogLevel::kDebug,
      absl::StrCat(outage ? "no member answers as it should; " : "", line));
}

CallId Engine::Call(UnaryCall call, UnaryDone done) {
  const CallId id = next_id_++;
  PendingCall& pending = calls_[id];
  pending.call = std::move(call);
  pending.done = std::move(done);
  pending.began = now_;
  budget_.OnCalls(1);
  if (down_) {
    Finish(id, Cancelled(false));
  } else {
    StartAttempt(id, pending);
  }
  return id;
}

CallId Engine::Continue(UnaryCall call, size_t endpoint, const WireStatus& first, Instant began,
                        UnaryDone done) {
  const CallId id = next_id_++;
  PendingCall& pending = calls_[id];
  pending.call = std::move(call);
  pending.done = std::move(done);
  pending.began = began;
  pending.endpoint = endpoint;
  pending.attempts = 1;
  budget_.OnCalls(1);
  if (down_) {
    const Verdict verdict = Judge(pending.call.kind, first, "");
    Finish(id, Cancelled(IsOutcomeUnknown(verdict.status)));
  } else {
    OnAttemptFailed(id, pending, first);
  }
  return id;
}

void Engine::Cancel(CallId id) {
  auto found = calls_.find(id);
  if (found == calls_.end() || found->second.cancelled) return;
  PendingCall& call = found->second;
  call.cancelled = true;
  if (call.wire != 0) {
    transport_.CancelUnary(call.wire);  // the answer tells whether it was sent at all
    return;
  }
  Finish(id, Cancelled(false));  // what is tried again did not happen
}

Duration Engine::AttemptTimeout(const PendingCall& call) const {
  const Duration rest = std::max(Duration(0), call.call.deadline - now_);
  // Leaving a member that does not answer makes sense only for reads, and if there is another one.
  if (call.call.kind == CallKind::kWrite || pool_.size() == 1 || call.call.endpoint.has_value()) {
    return rest;
  }
  return std::min(rest,
                  options_.attempt_timeout * (1 << std::min(call.attempts, kAttemptDoublingsMax)));
}

void Engine::StartAttempt(CallId id, PendingCall& call) {
  if (tokens_ != nullptr && call.call.needs_token && AwaitsToken(id, call)) return;
  const std::optional<size_t> endpoint =
      call.call.endpoint.has_value() ? call.call.endpoint : pool_.Pick(now_);
  if (!endpoint.has_value()) {
    call.last = absl::UnavailableError("no endpoint is known yet");
    SetErrorDetail(call.last, {.retryable = true});
    return Hold(id, call, without_endpoint_);
  }
  if (!pool_.Contains(*endpoint)) {
    absl::Status gone = absl::UnavailableError("the member is no longer an endpoint");
    SetErrorDetail(gone, {});
    return Finish(id, gone);
  }
  call.endpoint = *endpoint;
  call.wire = next_id_++;
  attempts_[call.wire] = id;
  const Duration timeout = AttemptTimeout(call);
  ++call.attempts;
  transport_.StartUnary({.id = call.wire,
                         .endpoint = call.endpoint,
                         .method = call.call.method,
                         .request = call.call.request,
                         .timeout = timeout,
                         .require_leader = call.call.require_leader});
}

void Engine::OnUnaryDone(WireId id, const WireStatus& status, std::string response) {
  auto attempt = attempts_.find(id);
  if (attempt == attempts_.end()) return;
  const CallId call_id = attempt->second;
  attempts_.erase(attempt);
  PendingCall& call = calls_.at(call_id);
  call.wire = 0;
  if (!status.ok()) return OnAttemptFailed(call_id, call, status);
  pool_.Succeeded(call.endpoint);
  if (call.attempts > 1) budget_.OnRetrySucceeded();
  Finish(call_id, std::move(response));
  ReleaseHeld();
}

void Engine::OnAttemptFailed(CallId id, PendingCall& call, const WireStatus& status) {
  Verdict verdict = Judge(call.call.kind, status, pool_.NameOf(call.endpoint));
  if (call.cancelled) {
    Finish(id, Cancelled(IsOutcomeUnknown(verdict.status)));
    return;
  }
  if (verdict.blame_endpoint) Blame(call.endpoint, call.call.method, status.message);
  call.last = std::move(verdict.status);
  if (tokens_ != nullptr && RenewsToken(id, call, status)) return;
  if (verdict.try_again && !call.call.endpoint.has_value()) {
    TryAgain(id, call);
  } else {
    Finish(id, call.last);
  }
}

// ---- The token
// -----------------------------------------------------------------------------------------

// True: the call has ended, or is held until there is a token.
bool Engine::AwaitsToken(CallId id, PendingCall& call) {
  call.token_generation = tokens_->generation();
  if (tokens_->ready()) return false;
  if (absl::Status refusal = tokens_->refusal(); !refusal.ok()) {
    Finish(id, std::move(refusal));
    return true;
  }
  if (call.last.ok()) {
    call.last = absl::UnavailableError("no server has looked at the password yet");
    SetErrorDetail(call.last, {.retryable = true});
  }
  Hold(id, call, without_token_);
  return true;
}

// A refused token says that nothing was done: also a write may be sent again.
bool Engine::RenewsToken(CallId id, PendingCall& call, const WireStatus& status) {
  if (!call.call.needs_token || !TokenKeeper::IsTokenError(status.message) ||
      call.token_refusals == kTokenRefusalsMax) {
    return false;
  }
  ++call.token_refusals;
  tokens_->Refused(call.token_generation);
  StartAttempt(id, call);
  return true;
}

bool Engine::MayOpenStreams() const { return tokens_ == nullptr || tokens_->ready(); }

void Engine::OnToken(const absl::Status& status) {
  std::deque<CallId> waiting;
  waiting.swap(without_token_);
  for (const CallId id : waiting) {
    if (status.ok()) {
      (void)StartHeld(id);
    } else if (calls_.contains(id)) {
      Finish(id, status);
    }
  }
  if (!status.ok()) return;
  watches_->OnEndpointsChanged();
  leases_->OnEndpointsChanged();
}

void Engine::TryAgain(CallId id, PendingCall& call) {
  // Another member at once, as long as there is one that has not failed; then with pauses.
  const bool at_once = call.attempts < static_cast<int>(pool_.size()) + 1 && pool_.AnyHealthy(now_);
  const Duration delay =
      at_once ? Duration(0) : FullJitter(call.attempts - 1, kRetryBase, kRetryCap, prng_);
  if (now_ + delay >= call.call.deadline) {
    REACHED("client: a call gives up");
    Finish(id, GaveUp(call));
    return;
  }
  call.retry = At(now_ + delay, [this, id] { Retry(id); });
}

void Engine::Retry(CallId id) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return;
  if (held_.empty() && budget_.Take(now_)) {
    if (observer() != nullptr) observer()->OnRetry(found->second.call.method);
    return StartAttempt(id, found->second);
  }
  REACHED("client: a repetition waits for its budget");
  if (observer() != nullptr) observer()->OnRetryHeld();
  Hold(id, found->second, held_);
  ReleaseHeld();
}

// ---- Calls that wait for something else than time
// -------------------------------------------------

void Engine::Hold(CallId id, PendingCall& call, std::deque<CallId>& queue) {
  CancelTimer(call.retry);
  if (call.call.deadline != kNever) {
    call.retry = At(call.call.deadline, [this, id] {
      auto found = calls_.find(id);
      if (found != calls_.end()) Finish(id, GaveUp(found->second));
    });
  }
  if (queue.size() > 2 * calls_.size() + kEndedHeldMax) {
    std::erase_if(queue, [this](CallId each) { return !calls_.contains(each); });
  }
  queue.push_back(id);
}

// False: the call has ended meanwhile.
bool Engine::StartHeld(CallId id) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return false;
  CancelTimer(found->second.retry);
  StartAttempt(id, found->second);
  return true;
}

void Engine::ReleaseHeld() {
  while (!held_.empty()) {
    auto found = calls_.find(held_.front());
    if (found != calls_.end()) {
      if (!budget_.Take(now_)) break;
      if (observer() != nullptr) observer()->OnRetry(found->second.call.method);
    }
    const CallId id = held_.front();
    held_.pop_front();
    (void)StartHeld(id);
  }
  CancelTimer(release_);
  if (!held_.empty()) release_ = At(budget_.NextAt(now_), [this] { ReleaseHeld(); });
}

absl::Status Engine::GaveUp(const PendingCall& call) const {
  absl::Status status = absl::DeadlineExceededError(
      absl::StrCat("gave up after ", call.attempts, " attempt(s): ", call.last.message()));
  ErrorDetail detail = GetErrorDetail(call.last).value_or(ErrorDetail{});
  detail.retryable = true;
  SetErrorDetail(status, detail);
  return status;
}

void Engine::Finish(CallId id, absl::StatusOr<std::string> result) {
  auto found = calls_.find(id);
  CONCLAVE_CHECK(found != calls_.end());
  PendingCall& call = found->second;
  CancelTimer(call.retry);
  if (observer() != nullptr) {
    observer()->OnCall(call.call.method, result.status().code(), now_ - call.began);
  }
  Defer([done = std::move(call.done), result = std::move(result)]() mutable {
    done(std::move(result));
  });
  calls_.erase(found);
}

// ---- Endpoints
// -------------------------------------------------------------------------------------

void Engine::SetEndpoints(const std::vector<EndpointPool::Endpoint>& endpoints) {
  CONCLAVE_CHECK(!endpoints.empty(), "a client without endpoints");
  if (down_) return;
  const EndpointPool::Change change = pool_.Set(endpoints);
  for (size_t id : change.added) transport_.AddEndpoint(id, pool_.NameOf(id));
  watches_->OnEndpointsChanged();
  leases_->OnEndpointsChanged();
  for (size_t id : change.removed) transport_.RemoveEndpoint(id);
  std::deque<CallId> waiting;
  waiting.swap(without_endpoint_);
  for (CallId id : waiting) (void)StartHeld(id);
}

// ---- Streams
// ---------------------------------------------------------------------------------------

WireId Engine::OpenStream(size_t endpoint, std::string_view method, StreamListener* listener) {
  const WireId id = next_id_++;
  streams_[id] = listener;
  if (observer() != nullptr) observer()->OnStreamOpened(method);
  transport_.OpenStream(id, endpoint, method);
  return id;
}

WireId Engine::OpenDownload(size_t endpoint, std::string_view method, std::string_view request,
                            StreamListener* listener) {
  const WireId id = next_id_++;
  streams_[id] = listener;
  if (observer() != nullptr) observer()->OnStreamOpened(method);
  transport_.OpenDownload(id, endpoint, method, request);
  return id;
}

void Engine::CloseStream(WireId id) {
  if (streams_.erase(id) != 0) transport_.CloseStream(id);
}

void Engine::OnStreamMessage(WireId id, std::string_view message) {
  auto found = streams_.find(id);
  if (found != streams_.end()) found->second->OnMessage(message);
}

void Engine::OnStreamClosed(WireId id, const WireStatus& status) {
  auto found = streams_.find(id);
  if (found == streams_.end()) return;
  StreamListener* stream = found->second;
  streams_.erase(found);
  stream->OnClosed(status);
}

void Engine::Shutdown() {
  down_ = true;
  watches_->Shutdown();
  leases_->Shutdown();
  timers_.clear();
  for (auto& [wire, id] : attempts_) transport_.CancelUnary(wire);
  std::vector<CallId> open;
  for (auto& [id, call] : calls_) open.push_back(id);
  for (CallId id : open) {
    const PendingCall& call = calls_.at(id);
    Finish(id, Cancelled(call.wire != 0 && call.call.kind == CallKind::kWrite));
  }
  attempts_.clear();
  RunDeferred();
}

}  // namespace conclave
