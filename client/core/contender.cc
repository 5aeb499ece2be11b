#include "conclave/client/core/contender.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/undo.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(20);
constexpr Duration kRetryCap = std::chrono::seconds(1);
// How long a cancelled contender keeps its caller waiting for the removal of its key.
constexpr Duration kCancelPatience = std::chrono::seconds(1);
constexpr Duration kStraySoon = std::chrono::milliseconds(500);
// How often a rule may change its mind about how to join: each time somebody else was faster.
constexpr int kJoinsMax = 16;

}  // namespace

Contender::Contender(std::shared_ptr<SessionCore> session, Request request)
    : engine_(session->engine()), session_(std::move(session)), request_(std::move(request)) {
  if (request_.rule == nullptr) {
    const std::string prefix = absl::StrCat(request_.name, "/");
    request_.rule = std::make_shared<OneAtATime>(OneAtATime::Options{.names = {request_.name}});
    request_.keys = {absl::StrCat(prefix, absl::Hex(session_->lease()))};
    request_.local_queues = {prefix};
  }
  CONCLAVE_CHECK(!request_.keys.empty());
  if (request_.delay.has_value()) delay_.emplace(engine_, *request_.delay);
}

void Contender::Start(Done done, Lost lost) {
  CONCLAVE_CHECK(state_ == State::kNew);
  done_ = std::move(done);
  lost_ = std::move(lost);
  state_ = State::kQueued;
  on_session_lost_ = session_->OnLost(
      [self = shared_from_this()] { self->OnGone(absl::AbortedError("the session is lost")); });
  // Into all local queues at once, so that two contenders never wait for each other.
  for (const std::string& queue : request_.local_queues) {
    session_->Enqueue(queue, shared_from_this());
  }
  if (FirstLocally()) return OnTurn();
  if (!request_.only_try) return;
  for (const std::string& queue : request_.local_queues) {
    const Contender* first = session_->First(queue);
    if (first == this) continue;
    return Refuse(KeyValue{.key = first->key(), .value = first->value()});
  }
}

bool Contender::FirstLocally() const {
  return std::all_of(request_.local_queues.begin(), request_.local_queues.end(),
                     [this](const std::string& queue) { return session_->First(queue) == this; });
}

void Contender::OnTurn() {
  if (state_ != State::kQueued || !FirstLocally()) return;
  state_ = State::kJoining;
  Join();
}

bool Contender::contending() const {
  return state_ == State::kJoining || state_ == State::kWaiting || state_ == State::kSecuring;
}

// ---- Joining
// ---------------------------------------------------------------------------------------

TxnRequest Contender::JoinTxn() const {
  TxnRequest join;
  for (const std::string& key : request_.keys) {
    join.conditions.push_back(Absent(key));
    join.success.push_back(Put(key, request_.value, {.lease = session_->lease()}));
    join.failure.push_back(Get(key));
  }
  for (Compare& condition : request_.rule->Conditions(request_.only_try)) {
    join.conditions.push_back(std::move(condition));
  }
  for (Op& write : request_.rule->Writes()) join.success.push_back(std::move(write));
  for (Op& read : request_.rule->Reads(0)) {
    join.success.push_back(read);
    join.failure.push_back(std::move(read));
  }
  if (request_.only_try) {
    join.failure.push_back(
        Range(request_.rule->Owners(), {.limit = 1,
                                        .sort_order = SortOrder::kAscend,
                                        .sort_target = SortTarget::kCreateRevision}));
  }
  if (!request_.beside_key.empty()) {
    const Op beside = Put(request_.beside_key, request_.beside_value, {.lease = session_->lease()});
    join.success.push_back(beside);
    if (!request_.only_try) join.failure.push_back(beside);
  }
  return join;
}

void Contender::Join() {
  call_ = calls::Txn(engine_, JoinTxn(), engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnJoined(std::move(result));
                     });
}

void Contender::OnJoined(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  if (!result.ok() && IsOutcomeUnknown(result.status())) {
    REACHED("lock: the outcome of a join is unknown");
    stray_until_ = engine_.now() + kStrayMax;
  }
  if (state_ == State::kLeaving) {
    REACHED("lock: a claim is cancelled while it joins");
    return Leave();
  }
  if (state_ != State::kJoining) return;
  if (!result.ok()) return TryAgain(result.status(), &Contender::Join);
  failures_ = 0;
  if (!result->succeeded) return OnJoinMissed(*result);
  token_ = result->revision;
  state_ = State::kWaiting;
  WatchOwnKeys(result->revision);
  Act(request_.rule->Decide(Answers(*result, request_.keys.size()), token_), result->revision);
}

// The answers to the rule's reads, which begin at the result with the index `from`.
std::vector<const RangeResult*> Contender::Answers(const TxnResult& result, size_t from) const {
  std::vector<const RangeResult*> answers;
  for (size_t i = from; i < result.results.size(); ++i) {
    if (const auto* range = std::get_if<RangeResult>(&result.results[i])) answers.push_back(range);
  }
  return answers;
}

// Some condition did not hold: our own keys are there already, or the rule's conditions failed.
void Contender::OnJoinMissed(const TxnResult& result) {
  const size_t keys = request_.keys.size();
  size_t own = 0;
  for (size_t i = 0; i < keys; ++i) own += result.get(i) != nullptr ? 1 : 0;
  if (own != 0) return AdoptOwnKeys(result);
  absl::Status why;
  switch (request_.rule->OnMissed(Answers(result, keys), request_.only_try, why)) {
    case TurnRule::Missed::kJoinAgain:
      if (++joins_ < kJoinsMax) return Join();
      why = absl::UnavailableError("others keep changing what we look at");
      [[fallthrough]];
    case TurnRule::Missed::kRefused:
      Finish(why);
      return End();
    case TurnRule::Missed::kOccupied:
      break;
  }
  std::optional<KeyValue> owner;
  if (request_.only_try && !result.results.empty()) {
    if (const KeyValue* first = result.get(result.results.size() - 1)) owner = *first;
  }
  Refuse(std::move(owner));
}

// A join whose answer was lost had taken effect; or a contender before us in this session could not
// remove its key.
void Contender::AdoptOwnKeys(const TxnResult& result) {
  REACHED("lock: a claim finds its own key");
  int64_t token = 0;
  bool current = true;
  for (size_t i = 0; i < request_.keys.size(); ++i) {
    const KeyValue* own = result.get(i);
    const bool ours = own != nullptr && own->lease == session_->lease();
    if (!ours || (token != 0 && own->create_revision != token)) {
      return OnGone(absl::FailedPreconditionError(
          absl::StrCat(request_.keys[i],
                       " is there already, or only in part: somebody put it by hand, or without "
                       "this session's lease")));
    }
    token = own->create_revision;
    current &= own->value == request_.value;
  }
  token_ = token;
  state_ = State::kWaiting;
  WatchOwnKeys(result.revision);
  if (current || request_.keys.size() > 1) return Look();
  // The key holds an older value: bring it up to date before owning it.
  Update(request_.value, engine_.now() + kStepTimeout,
         [self = shared_from_this()](const absl::Status& status) {
           if (self->state_ != State::kWaiting) return;
           if (!status.ok()) return self->OnGone(status);
           self->Look();
         });
}

void Contender::TryAgain(const absl::Status& why, void (Contender::*step)()) {
  if (!IsRetryable(why) && !IsOutcomeUnknown(why)) {
    if (absl::IsNotFound(why)) {
      absl::Status gone = absl::AbortedError("the session's lease is gone");
      if (const auto detail = GetErrorDetail(why)) SetErrorDetail(gone, *detail);
      return OnGone(gone);
    }
    return OnGone(why);
  }
  timer_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                         [self = shared_from_this(), step] { (self.get()->*step)(); });
}

// ---- Waiting
// ---------------------------------------------------------------------------------------

void Contender::Look() {
  if (state_ != State::kWaiting || call_ != 0) return;
  TxnRequest look;
  for (const std::string& key : request_.keys) look.success.push_back(Get(key));
  for (Op& read : request_.rule->Reads(token_)) look.success.push_back(std::move(read));
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
  for (size_t i = 0; i < request_.keys.size(); ++i) {
    const KeyValue* own = result->get(i);
    if (MUTANT("lock-granted-without-its-lease")) continue;
    if (own == nullptr || own->create_revision != token_) {
      REACHED("lock: a claim's place is gone");
      return OnGone(absl::AbortedError("our place in the queue is gone"));
    }
  }
  Act(request_.rule->Decide(Answers(*result, request_.keys.size()), token_), result->revision);
}

void Contender::Act(Turn turn, int64_t revision) {
  turn_ = std::move(turn);
  switch (turn_.kind) {
    case Turn::Kind::kOurs:
      return Own(turn_.announce);
    case Turn::Kind::kRefused:
      return OnGone(turn_.why);
    case Turn::Kind::kWait:
      break;
  }
  if (request_.only_try) {
    refused_ = true;
    return Cancel(absl::UnavailableError("somebody else has it"));
  }
  turn_watch_ = engine_.watches().Add(
      turn_.watch, {.from_revision = revision + 1, .no_puts = !turn_.puts},
      [self = shared_from_this()](const WatchBatch& batch) { self->OnWatched(batch); });
}

void Contender::OnWatched(const WatchBatch& batch) {
  if (state_ != State::kWaiting) return;
  if (!batch.status.ok()) return OnGone(batch.status);
  bool wakes = batch.resynced;  // compacted: a look clears it up
  for (const WatchEvent& event : batch.events) {
    wakes |= turn_.wakes == nullptr || turn_.wakes(event);
  }
  if (!wakes) return;
  engine_.watches().Remove(turn_watch_);
  turn_watch_ = 0;
  Look();
}

void Contender::WatchOwnKeys(int64_t after_revision) {
  for (size_t i = 0; i < request_.keys.size(); ++i) {
    own_watches_.push_back(engine_.watches().Add(
        request_.keys[i], {.from_revision = after_revision + 1},
        [self = shared_from_this(), i](const WatchBatch& batch) { self->OnOwnKey(i, batch); }));
  }
}

void Contender::OnOwnKey(size_t i, const WatchBatch& batch) {
  if (!batch.status.ok()) return OnGone(batch.status);
  bool there = true;
  if (batch.resynced) {
    there = !batch.state.empty() && batch.state.front().create_revision == token_;
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kDelete || event.kv.create_revision != token_)
      there = false;
  }
  if (MUTANT("lock-granted-without-its-lease") && state_ == State::kWaiting) return;
  if (!there) {
    REACHED("lock: a claim's key is gone");
    OnGone(absl::AbortedError(
        absl::StrCat("our key ", request_.keys[i], " was deleted, or its lease has ended")));
  }
}

// ---- Owning
// ----------------------------------------------------------------------------------------

void Contender::Own(bool announce) {
  if (delay_.has_value()) {
    state_ = State::kSecuring;
    return delay_->Place(CreateRevision(key()) == token_,
                         [self = shared_from_this(), announce](const absl::Status& placed) {
                           if (self->state_ != State::kSecuring) return;
                           if (placed.ok()) {
                             self->state_ = State::kOwning;
                             return self->Finish(Outcome{.owns = true});
                           }
                           self->state_ = State::kWaiting;
                           self->TryAgain(placed, &Contender::Look);
                         });
  }
  state_ = State::kOwning;
  Finish(Outcome{.owns = true});
  if (announce) {
    Update(request_.value, kNever, [](const absl::Status&) {});
  }
}

void Contender::Update(std::string value, Instant deadline, Left updated) {
  request_.value = std::move(value);
  TxnRequest update{.conditions = {CreateRevision(key()) == token_},
                    .success = {Put(key(), request_.value, {.lease = session_->lease()})}};
  calls::Txn(engine_, update, std::min(deadline, engine_.now() + kStepTimeout),
             [self = shared_from_this(), deadline,
              updated = std::move(updated)](absl::StatusOr<TxnResult> result) mutable {
               if (result.ok() && result->succeeded) return updated(absl::OkStatus());
               if (result.ok() || absl::IsNotFound(result.status())) {
                 const absl::Status lost = absl::AbortedError("our key is not there any more");
                 updated(lost);
                 return self->OnGone(lost);
               }
               const bool may_help =
                   IsRetryable(result.status()) || IsOutcomeUnknown(result.status());
               const Duration pause =
                   FullJitter(self->failures_++, kRetryBase, kRetryCap, self->engine_.prng());
               const bool there = self->state_ == State::kOwning || self->state_ == State::kWaiting;
               if (!may_help || !there || self->engine_.now() + pause >= deadline) {
                 return updated(result.status());
               }
               self->engine_.After(pause, [self, deadline, updated = std::move(updated)]() mutable {
                 if (self->state_ != State::kOwning && self->state_ != State::kWaiting) {
                   return updated(absl::AbortedError("it was lost or given up meanwhile"));
                 }
                 self->Update(self->request_.value, deadline, std::move(updated));
               });
             });
}

// A try found its place taken, and has no key there.
void Contender::Refuse(std::optional<KeyValue> owner) {
  Outcome outcome;
  outcome.owner = std::move(owner);
  Finish(std::move(outcome));
  End();
}

// The key or the session is gone: whatever we had or waited for is lost.
void Contender::OnGone(const absl::Status& why) {
  switch (state_) {
    case State::kQueued:
    case State::kJoining:
    case State::kWaiting:
    case State::kSecuring:
      if (MUTANT("lock-granted-without-its-lease") && session_->lost()) return;
      if (session_->lost()) {
        REACHED("lock: a session is lost while its claim waits");
        Finish(why);
        End();
      } else {
        refused_ = false;
        Cancel(why);  // the session lives on: leave no key behind
      }
      return;
    case State::kOwning:
      engine_.Defer([lost = std::move(lost_), why]() mutable { lost(why); });
      REACHED("lock: what was held is lost");
      if (session_->lost() || request_.keys.size() == 1) return End();
      state_ = State::kLeaving;  // the other keys must not stay behind
      leave_deadline_ = kNever;
      return Leave();
    case State::kLeaving:
      if (!session_->lost()) return;
      FinishCancelled();
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
  if (!contending()) return;
  state_ = State::kLeaving;
  why_ = why;
  leave_deadline_ = kNever;
  if (MUTANT("claim-given-up-leaves-its-key")) {
    Finish(why);
    return End();
  }
  patience_ =
      engine_.After(kCancelPatience, [self = shared_from_this()] { self->FinishCancelled(); });
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

void Contender::Detach() {
  CONCLAVE_CHECK(state_ == State::kOwning);
  stray_until_ = Instant{};  // a join that took effect late is what we hand over
  End();
}

void Contender::Leave() {
  if (state_ != State::kLeaving) return;
  StopWatching();
  if (removals_.empty()) removals_.push_back(request_.keys);
  TxnRequest leave;
  for (const std::string& key : removals_.front()) {
    leave.conditions.push_back(token_ != 0 ? CreateRevision(key) == token_
                                           : LeaseOf(key) == session_->lease());
    leave.success.push_back(Delete(key));
  }
  if (removals_.front() == request_.keys) {
    for (const std::string& companion : request_.companions) {
      leave.success.push_back(Delete(companion));
    }
    if (delay_.has_value() && delay_->attempted()) {
      leave.success.push_back(Delete(delay_->hold_key()));
    }
  }
  call_ = calls::Txn(engine_, leave, engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnLeft(std::move(result));
                     });
}

void Contender::OnLeft(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  if (state_ != State::kLeaving) return;
  if (!result.ok()) {
    REACHED("lock: a key could not be removed");
    if (MUTANT("release-tried-only-once")) {
      if (left_) engine_.Defer([left = std::move(left_)]() mutable { left(absl::OkStatus()); });
      return End();
    }
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
  const std::vector<std::string> removed = std::move(removals_.front());
  removals_.pop_front();
  // A miss after an attempt of unknown outcome: that attempt was it.
  if (!result->succeeded && !leave_unknown_) {
    left_some_lost_ = true;
    if (removed.size() > 1) {
      for (const std::string& key : removed) removals_.push_back({key});
    }
  }
  if (!removals_.empty()) return Leave();
  if (left_) {
    engine_.Defer([callback = std::move(left_), lost = left_some_lost_]() mutable {
      callback(lost ? absl::AbortedError("it was lost before") : absl::OkStatus());
    });
  }
  FinishCancelled();
  if (delay_.has_value() && !left_some_lost_) delay_->Withdraw();
  End();
}

void Contender::FinishCancelled() {
  if (!done_) return;
  if (refused_) return Finish(Outcome{});
  Finish(why_);
}

// A join that nobody answered may still be on its way to the store, and our own end does not stop
// it. If it arrives it mostly does so at once, and would stand in others' way until the last sweep.
void Contender::SweepLater() {
  const Instant now = engine_.now();
  if (now >= stray_until_) return;
  REACHED("lock: a join may still arrive");
  for (const Instant at : {std::min(now + kStraySoon, stray_until_), stray_until_}) {
    engine_.At(at, [self = shared_from_this()] { self->Sweep(); });
  }
}

void Contender::Sweep() {
  if (session_->lost()) return;
  for (const std::string& queue : request_.local_queues) {
    if (session_->First(queue) != nullptr) return;
  }
  // Whoever comes now puts the key that is deleted here, and has to wait.
  for (const std::string& queue : request_.local_queues) {
    session_->Enqueue(queue, shared_from_this());
  }
  auto unanswered = std::make_shared<size_t>(request_.keys.size());
  for (const std::string& key : request_.keys) {
    calls::Txn(engine_,
               {.conditions = {LeaseOf(key) == session_->lease()}, .success = {Delete(key)}},
               engine_.now() + kStepTimeout,
               [self = shared_from_this(), unanswered](const absl::StatusOr<TxnResult>&) {
                 if (--*unanswered > 0) return;
                 for (const std::string& queue : self->request_.local_queues) {
                   self->session_->Dequeue(queue, self.get());
                 }
               });
  }
}

void Contender::Finish(absl::StatusOr<Outcome> outcome) {
  if (!done_) return;
  engine_.CancelTimer(patience_);
  engine_.Defer([done = std::move(done_), outcome = std::move(outcome)]() mutable {
    done(std::move(outcome));
  });
  done_ = nullptr;
}

void Contender::StopWatching() {
  for (WatchHandle watch : own_watches_) engine_.watches().Remove(watch);
  own_watches_.clear();
  engine_.watches().Remove(turn_watch_);
  turn_watch_ = 0;
}

void Contender::End() {
  state_ = State::kGone;
  engine_.CancelTimer(timer_);
  engine_.CancelTimer(patience_);
  StopWatching();
  if (call_ != 0) engine_.Cancel(call_);
  if (delay_.has_value()) delay_->Abandon();
  session_->RemoveOnLost(on_session_lost_);
  for (const std::string& queue : request_.local_queues) session_->Dequeue(queue, this);
  SweepLater();
}

}  // namespace conclave
