#include "conclave/client/core/contender.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(20);
constexpr Duration kRetryCap = std::chrono::seconds(1);
// How long a cancelled contender keeps its caller waiting for the removal of its key.
constexpr Duration kCancelPatience = std::chrono::seconds(1);
// A server forgets a request after its own timeout (5 s and two elections); a join of unknown
// outcome cannot take effect later than this.
constexpr Duration kStrayJoinMax = std::chrono::seconds(12);

RangeOptions FirstOrLast(SortOrder order, int64_t max_create_revision) {
  return {.limit = 1,
          .sort_order = order,
          .sort_target = SortTarget::kCreateRevision,
          .max_create_revision = max_create_revision};
}

}  // namespace

Contender::Contender(std::shared_ptr<SessionCore> session, Request request)
    : engine_(session->engine()),
      session_(std::move(session)),
      request_(std::move(request)),
      prefix_(absl::StrCat(request_.name, "/")),
      key_(absl::StrCat(prefix_, absl::Hex(session_->lease()))) {}

void Contender::Start(Done done, Lost lost) {
  CONCLAVE_CHECK(state_ == State::kNew);
  done_ = std::move(done);
  lost_ = std::move(lost);
  state_ = State::kQueued;
  on_session_lost_ = session_->OnLost(
      [self = shared_from_this()] { self->OnGone(absl::AbortedError("the session is lost")); });
  if (session_->Enqueue(prefix_, shared_from_this())) {
    OnTurn();
  } else if (request_.only_try) {
    const Contender* first = session_->First(prefix_);
    Outcome outcome;
    outcome.owner = KeyValue{.key = first->key(), .value = first->value()};
    Finish(std::move(outcome));
    End();
  }
}

void Contender::OnTurn() {
  if (state_ != State::kQueued) return;
  state_ = State::kJoining;
  Join();
}

// ---- Joining
// ---------------------------------------------------------------------------------------

TxnRequest Contender::JoinTxn() const {
  const Op put = Put(key_, request_.value, {.lease = session_->lease()});
  const Op owner = Range(Prefix(prefix_), FirstOrLast(SortOrder::kAscend, 0));
  if (request_.only_try) {
    return {
        .conditions = {Absent(Prefix(prefix_))}, .success = {put}, .failure = {Get(key_), owner}};
  }
  return {.conditions = {Absent(key_)}, .success = {put, owner}, .failure = {Get(key_), owner}};
}

void Contender::Join() {
  call_ = calls::Txn(engine_, JoinTxn(), engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnJoined(std::move(result));
                     });
}

void Contender::OnJoined(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  if (!result.ok() && IsOutcomeUnknown(result.status())) join_unknown_ = true;
  if (state_ == State::kLeaving) return Leave();  // cancelled meanwhile
  if (state_ != State::kJoining) return;
  if (!result.ok()) return TryAgain(result.status(), &Contender::Join);
  join_unknown_ = false;
  failures_ = 0;
  if (request_.only_try) return OnTried(*result);
  const KeyValue* own = result->succeeded ? nullptr : result->get(0);
  if (!result->succeeded && (own == nullptr || own->lease != session_->lease())) {
    return OnGone(absl::FailedPreconditionError(
        absl::StrCat(key_, " is there already, without this session's lease")));
  }
  token_ = result->succeeded ? result->revision : own->create_revision;
  state_ = State::kWaiting;
  WatchOwnKey(result->revision);
  const KeyValue* owner = result->get(1);
  const bool first = owner == nullptr || owner->create_revision == token_;
  // A key of ours that was there before holds an older value: bring it up to date before owning it.
  if (own != nullptr && own->value != request_.value) {
    return Update(request_.value, engine_.now() + kStepTimeout,
                  [self = shared_from_this()](const absl::Status& status) {
                    if (self->state_ != State::kWaiting) return;
                    if (!status.ok()) return self->OnGone(status);
                    self->Look();
                  });
  }
  if (first) return Own();
  Look();
}

void Contender::OnTried(const TxnResult& result) {
  const KeyValue* own = result.succeeded ? nullptr : result.get(0);
  const KeyValue* owner = result.succeeded ? nullptr : result.get(1);
  if (result.succeeded || (own != nullptr && owner->key == key_)) {
    token_ = result.succeeded ? result.revision : own->create_revision;
    WatchOwnKey(result.revision);
    return Own();
  }
  Outcome outcome;
  if (owner != nullptr) outcome.owner = *owner;
  Finish(std::move(outcome));
  End();
}

void Contender::TryAgain(const absl::Status& why, void (Contender::*step)()) {
  if (!IsRetryable(why) && !IsOutcomeUnknown(why)) {
    if (absl::IsNotFound(why)) return OnGone(absl::AbortedError("the session's lease is gone"));
    return OnGone(why);
  }
  timer_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                         [self = shared_from_this(), step] { (self.get()->*step)(); });
}

// ---- Waiting
// ---------------------------------------------------------------------------------------

void Contender::Look() {
  if (state_ != State::kWaiting) return;
  TxnRequest look{
      .success = {Get(key_), Range(Prefix(prefix_), FirstOrLast(SortOrder::kDescend, token_ - 1))}};
  call_ = calls::Txn(engine_, look, engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnLooked(std::move(result));
                     });
}

void Contender::OnLooked(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  if (state_ == State::kLeaving) return Leave();
  if (state_ != State::kWaiting) return;
  if (!result.ok()) return TryAgain(result.status(), &Contender::Look);
  failures_ = 0;
  const KeyValue* own = result->get(0);
  if (own == nullptr || own->create_revision != token_) {
    return OnGone(absl::AbortedError("our place in the queue is gone"));
  }
  const KeyValue* predecessor = result->get(1);
  if (predecessor == nullptr) return Own();
  predecessor_watch_ = engine_.watches().Add(
      predecessor->key, {.from_revision = result->revision + 1, .no_puts = true},
      [self = shared_from_this()](const WatchBatch& batch) { self->OnPredecessor(batch); });
}

void Contender::OnPredecessor(const WatchBatch& batch) {
  if (!batch.status.ok()) return OnGone(batch.status);
  // Deleted; or compacted, which a look clears up as well.
  engine_.watches().Remove(predecessor_watch_);
  predecessor_watch_ = 0;
  Look();
}

void Contender::WatchOwnKey(int64_t after_revision) {
  own_watch_ = engine_.watches().Add(
      key_, {.from_revision = after_revision + 1},
      [self = shared_from_this()](const WatchBatch& batch) { self->OnOwnKey(batch); });
}

void Contender::OnOwnKey(const WatchBatch& batch) {
  if (!batch.status.ok()) return OnGone(batch.status);
  bool there = true;
  if (batch.resynced) {
    there = !batch.state.empty() && batch.state.front().create_revision == token_;
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kDelete || event.kv.create_revision != token_)
      there = false;
  }
  if (!there) OnGone(absl::AbortedError("our key was deleted, or its lease has ended"));
}

// ---- Owning
// ----------------------------------------------------------------------------------------

void Contender::Own() {
  state_ = State::kOwning;
  Finish(Outcome{.owns = true});
}

void Contender::Update(std::string value, Instant deadline, Left updated) {
  request_.value = std::move(value);
  TxnRequest update{.conditions = {CreateRevision(key_) == token_},
                    .success = {Put(key_, request_.value, {.lease = session_->lease()})}};
  calls::Txn(engine_, update, deadline,
             [self = shared_from_this(),
              updated = std::move(updated)](absl::StatusOr<TxnResult> result) mutable {
               if (!result.ok()) return updated(result.status());
               if (result->succeeded) return updated(absl::OkStatus());
               const absl::Status lost = absl::AbortedError("our key is not there any more");
               updated(lost);
               self->OnGone(lost);
             });
}

// The key or the session is gone: whatever we had or waited for is lost.
void Contender::OnGone(const absl::Status& why) {
  switch (state_) {
    case State::kQueued:
    case State::kJoining:
    case State::kWaiting:
      if (session_->lost()) {
        Finish(why);
        End();
      } else {
        Cancel(why);  // the session lives on: leave no key behind
      }
      return;
    case State::kOwning:
      engine_.Defer([lost = std::move(lost_), why]() mutable { lost(why); });
      End();
      return;
    case State::kLeaving:
      if (!session_->lost()) return;
      if (done_) Finish(why_);
      // The lease takes the key along, or has done so.
      if (left_) {
        engine_.Defer([left = std::move(left_)]() mutable {
          left(absl::AbortedError("the session is lost"));
        });
      }
      End();
      return;
    case State::kNew:
    case State::kGone:
      return;
  }
}

// ---- Leaving
// ---------------------------------------------------------------------------------------

void Contender::Cancel(const absl::Status& why) {
  if (state_ == State::kQueued) {
    Finish(why);
    return End();
  }
  if (state_ != State::kJoining && state_ != State::kWaiting) return;
  state_ = State::kLeaving;
  why_ = why;
  leave_deadline_ = kNever;
  patience_ = engine_.After(kCancelPatience, [self = shared_from_this()] {
    if (self->done_) self->Finish(self->why_);
  });
  engine_.CancelTimer(timer_);
  if (call_ != 0) {
    engine_.Cancel(call_);  // its answer goes on with Leave
  } else {
    Leave();
  }
}

void Contender::Release(Instant deadline, Left left) {
  if (state_ != State::kOwning) {
    engine_.Defer(
        [left = std::move(left)]() mutable { left(absl::AbortedError("it was lost before")); });
    return;
  }
  state_ = State::kLeaving;
  left_ = std::move(left);
  leave_deadline_ = deadline;
  Leave();
}

void Contender::Leave() {
  if (state_ != State::kLeaving) return;
  engine_.watches().Remove(own_watch_);
  engine_.watches().Remove(predecessor_watch_);
  own_watch_ = predecessor_watch_ = 0;
  TxnRequest leave{.success = {Delete(key_)}};
  leave.conditions.push_back(token_ != 0 ? CreateRevision(key_) == token_
                                         : LeaseOf(key_) == session_->lease());
  call_ = calls::Txn(engine_, leave, engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnLeft(std::move(result));
                     });
}

void Contender::OnLeft(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  if (state_ != State::kLeaving) return;
  if (!result.ok()) {
    if (IsOutcomeUnknown(result.status())) leave_unknown_ = true;
    if (left_ && (engine_.now() >= leave_deadline_ || !IsRetryable(result.status()))) {
      engine_.Defer(
          [left = std::move(left_), status = result.status()]() mutable { left(status); });
    }
    // As long as the session lives the key must go, or nobody else ever owns the name.
    timer_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                           [self = shared_from_this()] { self->Leave(); });
    return;
  }
  if (left_) {
    // A miss after an attempt of unknown outcome: that attempt was it.
    const bool left = result->succeeded || leave_unknown_;
    engine_.Defer([callback = std::move(left_), left]() mutable {
      callback(left ? absl::OkStatus() : absl::AbortedError("it was lost before"));
    });
  }
  if (done_) Finish(why_);
  if (join_unknown_) SweepLater();
  End();
}

void Contender::SweepLater() {
  engine_.After(kStrayJoinMax, [self = shared_from_this()] {
    if (self->session_->lost() || self->session_->First(self->prefix_) != nullptr) return;
    calls::Txn(self->engine_,
               {.conditions = {LeaseOf(self->key_) == self->session_->lease()},
                .success = {Delete(self->key_)}},
               self->engine_.now() + kStepTimeout, [](const absl::StatusOr<TxnResult>&) {});
  });
}

void Contender::Finish(absl::StatusOr<Outcome> outcome) {
  if (!done_) return;
  engine_.CancelTimer(patience_);
  engine_.Defer([done = std::move(done_), outcome = std::move(outcome)]() mutable {
    done(std::move(outcome));
  });
  done_ = nullptr;
}

void Contender::End() {
  state_ = State::kGone;
  engine_.CancelTimer(timer_);
  engine_.CancelTimer(patience_);
  engine_.watches().Remove(own_watch_);
  engine_.watches().Remove(predecessor_watch_);
  own_watch_ = predecessor_watch_ = 0;
  if (call_ != 0) engine_.Cancel(call_);
  session_->RemoveOnLost(on_session_lost_);
  session_->Dequeue(prefix_, this);
}

}  // namespace conclave
