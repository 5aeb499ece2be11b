#include "conclave/registry/registrar.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(100);
constexpr Duration kRetryCap = std::chrono::seconds(5);
// Registered this long without a repair: the next repair begins with short pauses again.
constexpr Duration kSettled = std::chrono::seconds(10);
// After this a write that was given up can no longer take effect: servers refuse what they could
// not commit by then.
constexpr Duration kStragglersGone = std::chrono::seconds(10);

}  // namespace

Registrar::Registrar(Engine& engine, std::shared_ptr<SharedLease> lease,
                     std::shared_ptr<OverrideBook> overrides, const Codec& codec, Instance instance,
                     Observer observer)
    : engine_(engine),
      lease_(std::move(lease)),
      overrides_(std::move(overrides)),
      codec_(codec),
      instance_(std::move(instance)),
      observer_(std::move(observer)),
      override_known_(overrides_ == nullptr),
      key_(codec_.Key(instance_, 0)) {}

void Registrar::Start() {
  Change();
  if (overrides_ != nullptr) {
    subscription_ =
        overrides_->Subscribe(instance_.service, instance_.id, instance_.address,
                              [weak = weak_from_this()](const std::optional<Override>& value) {
                                if (std::shared_ptr<Registrar> self = weak.lock()) {
                                  self->OnOverride(value);
                                }
                              });
  }
  tenant_ = lease_->Join(shared_from_this());
}

void Registrar::SetState(RegState state, const absl::Status& why) {
  if (event_.state == state && event_.why == why) return;
  event_.state = state;
  event_.why = why;
  engine_.Defer([self = shared_from_this(), event = event_] { self->observer_(event); });
}

// The key is as wanted.
void Registrar::Settle() {
  const Effective effective = this->effective();
  const bool draining = effective.instance.state == InstanceState::kDraining ||
                        (override_.has_value() && override_->kind == Override::Kind::kOut);
  SetState(draining ? RegState::kDraining : RegState::kRegistered, effective.why);
}

// ---- What is wanted
// --------------------------------------------------------------------------------

Effective Registrar::effective() const {
  Effective effective{.instance = instance_};
  InstanceState& state = effective.instance.state;
  if (!health_.ok() && state == InstanceState::kServing) {
    state = InstanceState::kDown;
    effective.why = health_;
  }
  if (draining_) state = InstanceState::kDraining;
  if (override_.has_value()) {
    if (override_->kind == Override::Kind::kDrain) state = InstanceState::kDraining;
    if (override_->kind == Override::Kind::kWeight) effective.instance.weight = override_->weight;
    effective.visible = override_->kind != Override::Kind::kOut;
    effective.why = absl::FailedPreconditionError(
        absl::StrCat("an operator's override says ", OverrideText(*override_)));
  }
  if (state != InstanceState::kServing && !codec_.ShowsState()) effective.visible = false;
  return effective;
}

void Registrar::Change() {
  const Effective effective = this->effective();
  wanted_.reset();
  if (effective.visible) wanted_ = codec_.Encode(effective.instance);
  if (!waiting_) Reconcile();
}

void Registrar::Update(Instance instance) {
  instance.service = instance_.service;
  instance.id = instance_.id;
  instance.address = instance_.address;
  instance_ = std::move(instance);
  Change();
}

void Registrar::SetDraining(bool draining) {
  draining_ = draining;
  Change();
}

void Registrar::SetHealth(const absl::Status& health) {
  health_ = health;
  Change();
}

void Registrar::OnOverride(const std::optional<Override>& value) {
  override_known_ = true;
  override_ = value;
  Change();
}

// ---- The lease
// -------------------------------------------------------------------------------------

void Registrar::OnLease(LeaseEvent event, const absl::Status& why) {
  if (!Active()) return;
  switch (event) {
    case LeaseEvent::kGranted:
      return OnGranted();
    case LeaseEvent::kGrantFailed:
      return SetState(was_registered_ ? RegState::kReregistering : RegState::kStarting, why);
    case LeaseEvent::kSuspect:
      if (Settled()) SetState(RegState::kSuspect, why);
      return;
    case LeaseEvent::kAlive:
      if (event_.state == RegState::kSuspect) Settle();
      return;
    case LeaseEvent::kLost:
    case LeaseEvent::kEnded:
      granted_ = 0;
      if (call_ != 0) engine_.Cancel(call_);
      engine_.CancelTimer(retry_);
      waiting_ = false;
      return SetState(RegState::kLost, why);
  }
}

void Registrar::OnGranted() {
  granted_ = lease_->lease();
  if (const std::string key = codec_.Key(instance_, granted_); key != key_) {
    if (was_registered_) old_key_ = key_;
    key_ = key;
    seen_revision_ = 0;
    StopWatching();
  }
  as_written_ = false;
  if (was_registered_) SetState(RegState::kReregistering, absl::OkStatus());
  Reconcile();
}

void Registrar::Retry(const absl::Status& why) {
  SetState(was_registered_ ? RegState::kReregistering : RegState::kStarting, why);
  engine_.CancelTimer(retry_);
  waiting_ = true;
  retry_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                         [self = shared_from_this()] {
                           self->waiting_ = false;
                           self->Reconcile();
                         });
}

// ---- The key
// ---------------------------------------------------------------------------------------

void Registrar::Reconcile() {
  if (!Active() || granted_ == 0 || granted_ != lease_->lease() || !override_known_) return;
  if (writing_) {
    again_ = true;
    return;
  }
  if (as_written_ && stored_ == wanted_) return Settle();
  writing_ = true;
  again_ = false;
  lease_->Write(tenant_, [self = shared_from_this()] { self->WriteNow(); });
}

TxnRequest Registrar::WriteRequest() const {
  TxnRequest write{.conditions = {ModRevision(key_) == seen_revision_}, .failure = {Get(key_)}};
  if (!old_key_.empty()) write.success.push_back(Delete(old_key_));
  if (wanted_.has_value()) {
    const LeaseId lease = MUTANT("registration-without-a-lease") ? 0 : granted_;
    write.success.push_back(Put(key_, *wanted_, {.lease = lease}));
  } else {
    write.success.push_back(Delete(key_));
  }
  return write;
}

void Registrar::WriteNow() {
  if (!Active() || granted_ == 0) {  // while it stood in the queue
    writing_ = false;
    return lease_->WriteDone();
  }
  attempt_ = wanted_;
  may_arrive_ = true;
  call_ =
      calls::Txn(engine_, WriteRequest(), engine_.now() + kStepTimeout,
                 [self = shared_from_this(), lease = granted_](absl::StatusOr<TxnResult> result) {
                   self->lease_->WriteDone();
                   self->OnWritten(lease, std::move(result));
                 });
}

void Registrar::OnWritten(LeaseId lease, absl::StatusOr<TxnResult> result) {
  call_ = 0;
  writing_ = false;
  if (result.ok()) may_arrive_ = false;
  if (!Active()) return;
  if (lease != granted_) return Reconcile();  // lost meanwhile, and perhaps found again
  if (!result.ok()) {
    // Whatever became of it, the next attempt compares with what is there.
    as_written_ = false;
    if (absl::IsNotFound(result.status())) lease_->OnNotFound(lease);
    return Retry(result.status());
  }
  if (!result->succeeded) return OnOccupied(result->get(0));
  if (was_registered_ && lease != written_on_) ++event_.reregistrations;
  seen_revision_ = attempt_.has_value() ? result->revision : 0;
  stored_ = attempt_;
  as_written_ = true;
  written_on_ = lease;
  old_key_.clear();
  was_registered_ = true;
  registered_at_ = engine_.now();
  WatchOwnKey(result->revision);
  Settle();
  if (again_) Reconcile();
}

// The key is not as we thought it was.
void Registrar::OnOccupied(const KeyValue* kv) {
  as_written_ = false;
  if (kv == nullptr) {
    seen_revision_ = 0;
    return Reconcile();
  }
  absl::StatusOr<Instance> other = codec_.Decode(instance_.service, kv->key, kv->value);
  const bool another_instance = kv->lease != granted_ && other.ok() && !other->id.empty() &&
                                !instance_.id.empty() && other->id != instance_.id;
  if (another_instance) {
    return Retry(
        absl::AlreadyExistsError(absl::StrCat(key_, " belongs to instance \"", other->id, "\"")));
  }
  seen_revision_ = kv->mod_revision;
  Reconcile();
}

void Registrar::WatchOwnKey(int64_t after_revision) {
  if (watch_ != 0) return;
  watch_ = engine_.watches().Add(key_, {.from_revision = after_revision + 1},
                                 [weak = weak_from_this()](const WatchBatch& batch) {
                                   if (std::shared_ptr<Registrar> self = weak.lock())
                                     self->OnOwnKey(batch);
                                 });
}

void Registrar::StopWatching() {
  engine_.watches().Remove(watch_);
  watch_ = 0;
}

void Registrar::OnOwnKey(const WatchBatch& batch) {
  if (!batch.status.ok()) return StopWatching();
  if (batch.resynced) OnKeyIs(batch.state.empty() ? nullptr : &batch.state.front());
  if (batch.events.empty()) return;
  const WatchEvent& last = batch.events.back();
  if (last.kv.mod_revision < seen_revision_) return;
  OnKeyIs(last.type == WatchEvent::Type::kDelete ? nullptr : &last.kv);
}

void Registrar::OnKeyIs(const KeyValue* kv) {
  seen_revision_ = kv == nullptr ? 0 : kv->mod_revision;
  // A write of ours under way compares with the old revision, misses, and looks again.
  if (granted_ == 0 || writing_ || !Active()) return;
  if (!wanted_.has_value() && (kv == nullptr || kv->lease != granted_)) return;
  if (kv != nullptr && kv->lease == granted_ && kv->value == wanted_) return;
  as_written_ = false;
  ++event_.repairs;
  if (engine_.now() - registered_at_ > kSettled) failures_ = 0;
  Retry(kv == nullptr ? absl::NotFoundError("the key was deleted")
                      : absl::AbortedError("the key was overwritten"));
}

// ---- The end
// ---------------------------------------------------------------------------------------

// Nothing is repaired any more.
void Registrar::End() {
  withdrawn_ = true;
  engine_.CancelTimer(retry_);
  StopWatching();
  if (overrides_ != nullptr) overrides_->Unsubscribe(subscription_);
  if (call_ != 0) engine_.Cancel(call_);
}

void Registrar::Remove(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  if (removed_ || lease_->lease() == 0 || (!was_registered_ && !may_arrive_)) {
    engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  const TxnRequest remove{.conditions = {LeaseOf(key_) == lease_->lease()},
                          .success = {Delete(key_)}};
  calls::Txn(engine_, remove, deadline,
             [self = shared_from_this(),
              done = std::move(done)](const absl::StatusOr<TxnResult>& result) mutable {
               self->removed_ = result.ok();
               // The lease may live on with others, so what may still be there, or may yet arrive,
               // is looked after.
               if (!result.ok()) self->lease_->Sweep(self->key_, kRetryBase);
               if (self->may_arrive_) self->lease_->Sweep(self->key_, kStragglersGone);
               done(result.status());
             });
}

void Registrar::Withdraw(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  if (event_.state == RegState::kGone) {
    engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  const bool was_active = Active();
  End();
  if (was_active) SetState(RegState::kDraining, absl::OkStatus());
  Remove(deadline, std::move(done));
}

void Registrar::Stop(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  if (event_.state == RegState::kGone) {
    engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  End();
  SetState(RegState::kGone, absl::OkStatus());
  if (lease_->LeavingRevokes(tenant_)) return lease_->Leave(tenant_, deadline, std::move(done));
  Remove(deadline, [self = shared_from_this(), deadline,
                    done = std::move(done)](const absl::Status& removed) mutable {
    self->lease_->Leave(self->tenant_, deadline,
                        [removed, done = std::move(done)](const absl::Status& left) mutable {
                          done(removed.ok() ? left : removed);
                        });
  });
}

}  // namespace conclave
