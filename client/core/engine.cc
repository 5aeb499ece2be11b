#include "conclave/client/core/engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"
#include "conclave/client/core/resuming_stream.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {
namespace {

constexpr Duration kRetryBase = std::chrono::milliseconds(25);
constexpr Duration kRetryCap = std::chrono::seconds(1);
constexpr int kAttemptDoublingsMax = 6;

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
      pool_(options_.endpoints.size(), prng_),
      watches_(std::make_unique<WatchMux>(*this)),
      leases_(std::make_unique<LeaseKeeper>(*this)) {}

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

CallId Engine::Call(UnaryCall call, UnaryDone done) {
  const CallId id = next_id_++;
  PendingCall& pending = calls_[id];
  pending.call = std::move(call);
  pending.done = std::move(done);
  if (down_) {
    Finish(id, Cancelled(false));
  } else {
    StartAttempt(id, pending);
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
  CancelTimer(call.retry);
  Finish(id, Cancelled(call.outcome_unknown));
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
  call.endpoint = call.call.endpoint.value_or(pool_.Pick(now_));
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
  if (status.ok()) {
    pool_.Succeeded(call.endpoint);
    Finish(call_id, std::move(response));
    return;
  }
  Verdict verdict = Judge(call.call.kind, status, options_.endpoints[call.endpoint]);
  if (call.cancelled) {
    Finish(call_id, Cancelled(IsOutcomeUnknown(verdict.status)));
    return;
  }
  if (verdict.blame_endpoint) pool_.Failed(call.endpoint, now_);
  call.last = std::move(verdict.status);
  if (verdict.try_again && !call.call.endpoint.has_value()) {
    TryAgain(call_id, call);
  } else {
    Finish(call_id, call.last);
  }
}

void Engine::TryAgain(CallId id, PendingCall& call) {
  // Another member at once, as long as there is one that has not failed; then with pauses.
  const bool at_once = call.attempts < static_cast<int>(pool_.size()) + 1 && pool_.AnyHealthy(now_);
  const Duration delay =
      at_once ? Duration(0) : FullJitter(call.attempts - 1, kRetryBase, kRetryCap, prng_);
  if (now_ + delay >= call.call.deadline) {
    Finish(id, GaveUp(call));
    return;
  }
  call.retry = At(now_ + delay, [this, id] {
    auto found = calls_.find(id);
    if (found != calls_.end()) StartAttempt(id, found->second);
  });
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
  Defer([done = std::move(found->second.done), result = std::move(result)]() mutable {
    done(std::move(result));
  });
  calls_.erase(found);
}

WireId Engine::OpenStream(size_t endpoint, std::string_view method, ResumingStream* owner) {
  const WireId id = next_id_++;
  streams_[id] = owner;
  transport_.OpenStream(id, endpoint, method);
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
  ResumingStream* stream = found->second;
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
