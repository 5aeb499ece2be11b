#include "conclave/registry/registrar.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(100);
constexpr Duration kRetryCap = std::chrono::seconds(5);
// Registered this long without a repair: the next repair begins with short pauses again.
constexpr Duration kSettled = std::chrono::seconds(10);

}  // namespace

std::string_view RegStateName(RegState state) {
  switch (state) {
    case RegState::kStarting:
      return "starting";
    case RegState::kRegistered:
      return "registered";
    case RegState::kSuspect:
      return "suspect";
    case RegState::kLost:
      return "lost";
    case RegState::kReregistering:
      return "reregistering";
    case RegState::kGone:
      return "gone";
  }
  return "?";
}

Registrar::Registrar(Engine& engine, Instance instance, int64_t ttl_seconds, Observer observer)
    : engine_(engine),
      instance_(std::move(instance)),
      key_(InstanceKey(instance_.service, instance_.address)),
      ttl_seconds_(ttl_seconds),
      observer_(std::move(observer)),
      wanted_(EncodeNamingValue(instance_)) {}

void Registrar::Start() { OpenSession(); }

void Registrar::SetState(RegState state, const absl::Status& why) {
  if (state_ == state && why.ok()) return;
  state_ = state;
  engine_.Defer([self = shared_from_this(), state, why] { self->observer_(state, why); });
}

// ---- The lease
// -------------------------------------------------------------------------------------

void Registrar::OpenSession() {
  if (!Active()) return;
  call_ = SessionCore::Open(
      // A lease that was not renewed in time may still live: until it ends the key can move to the
      // next one, and no reader sees a healthy instance leave.
      engine_, {.ttl_seconds = ttl_seconds_, .revoke_on_loss = false}, engine_.now() + kStepTimeout,
      [weak = weak_from_this()](SessionHealth health, Instant) {
        if (std::shared_ptr<Registrar> self = weak.lock()) self->OnHealth(health);
      },
      [self = shared_from_this()](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
        self->call_ = 0;
        if (!self->Active()) {
          if (session.ok()) {
            (*session)->Close(self->engine_.now() + kStepTimeout, [](const absl::Status&) {});
          }
          return;
        }
        if (!session.ok()) return self->Retry(session.status());
        self->session_ = *std::move(session);
        self->Reconcile();
      });
}

void Registrar::OnHealth(SessionHealth health) {
  if (!Active()) return;
  if (health == SessionHealth::kSuspect && state_ == RegState::kRegistered) {
    SetState(RegState::kSuspect, absl::UnavailableError("the lease's renewals go unanswered"));
  } else if (health == SessionHealth::kAlive && state_ == RegState::kSuspect) {
    SetState(RegState::kRegistered, absl::OkStatus());
  } else if (health == SessionHealth::kLost) {
    session_ = nullptr;
    if (call_ != 0) engine_.Cancel(call_);
    SetState(RegState::kLost, absl::UnavailableError("the lease is lost"));
    Retry(absl::OkStatus());
  }
}

void Registrar::Retry(const absl::Status& why) {
  if (was_registered_ || !why.ok()) {
    SetState(was_registered_ ? RegState::kReregistering : RegState::kStarting, why);
  }
  engine_.CancelTimer(retry_);
  retry_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                         [self = shared_from_this()] {
                           if (self->session_ == nullptr) return self->OpenSession();
                           self->Reconcile();
                         });
}

// ---- The key
// ---------------------------------------------------------------------------------------

void Registrar::Reconcile() {
  if (!Active() || session_ == nullptr) return;
  if (writing_) {
    again_ = true;
    return;
  }
  writing_ = true;
  again_ = false;
  TxnRequest write{.conditions = {ModRevision(key_) == seen_revision_},
                   .success = {Put(key_, wanted_, {.lease = session_->lease()})},
                   .failure = {Get(key_)}};
  call_ = calls::Txn(engine_, write, engine_.now() + kStepTimeout,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnWritten(std::move(result));
                     });
}

void Registrar::OnWritten(absl::StatusOr<TxnResult> result) {
  call_ = 0;
  writing_ = false;
  if (!Active()) return;
  if (session_ == nullptr) return;  // lost meanwhile; a retry is under way
  if (!result.ok()) {
    // Whatever became of it, the next attempt compares with what is there.
    if (absl::IsNotFound(result.status())) {
      // The lease is gone; closing tells OnHealth.
      std::shared_ptr<SessionCore> session = std::exchange(session_, nullptr);
      session->Close(engine_.now() + kStepTimeout, [](const absl::Status&) {});
    }
    return Retry(result.status());
  }
  if (!result->succeeded) return OnOccupied(result->get(0));
  seen_revision_ = result->revision;
  was_registered_ = true;
  registered_at_ = engine_.now();
  WatchOwnKey(result->revision);
  SetState(RegState::kRegistered, absl::OkStatus());
  if (again_) Reconcile();
}

// The key is not as we thought it was.
void Registrar::OnOccupied(const KeyValue* kv) {
  if (kv == nullptr) {
    seen_revision_ = 0;
    return Reconcile();
  }
  absl::StatusOr<Instance> other = DecodeNamingValue(kv->value);
  const bool another_instance = kv->lease != session_->lease() && other.ok() &&
                                !other->id.empty() && !instance_.id.empty() &&
                                other->id != instance_.id;
  if (another_instance) {
    return Retry(
        absl::AlreadyExistsError(absl::StrCat(key_, " belongs to instance \"", other->id, "\"")));
  }
  seen_revision_ = kv->mod_revision;
  Reconcile();
}

void Registrar::WatchOwnKey(int64_t after_revision) {
  if (watch_ != 0) return;
  watch_ = engine_.watches().Add(
      key_, {.from_revision = after_revision + 1},
      [self = shared_from_this()](const WatchBatch& batch) { self->OnOwnKey(batch); });
}

void Registrar::OnOwnKey(const WatchBatch& batch) {
  if (!batch.status.ok()) {
    engine_.watches().Remove(watch_);
    watch_ = 0;
    return;
  }
  if (batch.resynced) OnKeyIs(batch.state.empty() ? nullptr : &batch.state.front());
  if (batch.events.empty()) return;
  const WatchEvent& last = batch.events.back();
  if (last.kv.mod_revision < seen_revision_) return;
  OnKeyIs(last.type == WatchEvent::Type::kDelete ? nullptr : &last.kv);
}

void Registrar::OnKeyIs(const KeyValue* kv) {
  seen_revision_ = kv == nullptr ? 0 : kv->mod_revision;
  // A write of ours under way compares with the old revision, misses, and looks again.
  if (session_ == nullptr || writing_ || !Active()) return;
  if (kv != nullptr && kv->lease == session_->lease() && kv->value == wanted_) return;
  if (engine_.now() - registered_at_ > kSettled) failures_ = 0;
  Retry(kv == nullptr ? absl::NotFoundError("the key was deleted")
                      : absl::AbortedError("the key was overwritten"));
}

void Registrar::Update(Instance instance) {
  instance.service = instance_.service;
  instance.address = instance_.address;
  instance_ = std::move(instance);
  wanted_ = EncodeNamingValue(instance_);
  if (state_ == RegState::kRegistered || state_ == RegState::kSuspect || writing_) Reconcile();
}

// ---- The end
// ---------------------------------------------------------------------------------------

void Registrar::Withdraw(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  const bool was_active = Active();
  withdrawn_ = true;
  engine_.CancelTimer(retry_);
  engine_.watches().Remove(watch_);
  watch_ = 0;
  if (!was_active || session_ == nullptr) {
    engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  TxnRequest remove{.conditions = {LeaseOf(key_) == session_->lease()}, .success = {Delete(key_)}};
  calls::Txn(engine_, remove, deadline,
             [done = std::move(done)](absl::StatusOr<TxnResult> result) mutable {
               done(result.status());
             });
}

void Registrar::Stop(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  withdrawn_ = true;
  engine_.CancelTimer(retry_);
  engine_.watches().Remove(watch_);
  watch_ = 0;
  if (call_ != 0) engine_.Cancel(call_);
  SetState(RegState::kGone, absl::OkStatus());
  std::shared_ptr<SessionCore> session = std::exchange(session_, nullptr);
  if (session == nullptr) {
    engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  session->Close(deadline, std::move(done));
}

}  // namespace conclave
