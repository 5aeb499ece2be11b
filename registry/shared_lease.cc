#include "conclave/registry/shared_lease.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/calls.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(100);
constexpr Duration kRetryCap = std::chrono::seconds(5);
// A lease that lived this long: the pauses after it begin short again.
constexpr Duration kSettled = std::chrono::seconds(10);

}  // namespace

SharedLease::SharedLease(Engine& engine, int64_t ttl_seconds,
                         std::function<void(const std::string&)> complain)
    : engine_(engine),
      ttl_seconds_(ttl_seconds),
      borrowed_(false),
      complain_(std::move(complain)) {}

SharedLease::SharedLease(Engine& engine, std::shared_ptr<SessionCore> session)
    : engine_(engine), ttl_seconds_(0), borrowed_(true), session_(std::move(session)) {}

// ---- Tenants
// ---------------------------------------------------------------------------------------

uint64_t SharedLease::Join(const std::shared_ptr<Tenant>& tenant) {
  const bool first = tenants_.empty();
  const uint64_t number = next_tenant_++;
  tenants_.emplace(number, tenant);
  if (borrowed_ && first && session_ != nullptr) {
    session_->OnLost([weak = weak_from_this()] {
      std::shared_ptr<SharedLease> self = weak.lock();
      if (self == nullptr || self->session_ == nullptr) return;
      self->session_ = nullptr;
      self->Tell(LeaseEvent::kEnded,
                 absl::FailedPreconditionError("the session that was given to it is lost or "
                                               "closed: register again on another one"));
    });
  }
  if (session_ != nullptr) {
    TellGranted(number, Duration(0));
  } else if (first && !borrowed_) {
    Open();
  }
  return number;
}

std::shared_ptr<SharedLease::Tenant> SharedLease::Find(uint64_t tenant) const {
  auto found = tenants_.find(tenant);
  return found == tenants_.end() ? nullptr : found->second.lock();
}

bool SharedLease::LeavingRevokes(uint64_t tenant) const {
  return !borrowed_ && tenants_.size() == 1 && tenants_.contains(tenant);
}

void SharedLease::Leave(uint64_t tenant, Instant deadline,
                        absl::AnyInvocable<void(absl::Status)> done) {
  const bool was_there = tenants_.erase(tenant) > 0;
  std::erase_if(waiting_, [tenant](const auto& each) { return each.first == tenant; });
  if (was_there && tenants_.empty() && !borrowed_) {
    ++generation_;
    had_one_ = false;
    failures_ = 0;
    engine_.CancelTimer(open_again_);
    if (opening_ != 0) engine_.Cancel(opening_);
    if (std::shared_ptr<SessionCore> session = std::exchange(session_, nullptr)) {
      session->Close(deadline, std::move(done));
      return;
    }
  }
  engine_.Defer([done = std::move(done)]() mutable { done(absl::OkStatus()); });
}

void SharedLease::Tell(LeaseEvent event, const absl::Status& why) {
  for (const auto& [number, tenant] : tenants_) {
    engine_.Defer([self = shared_from_this(), number = number, event, why] {
      if (std::shared_ptr<Tenant> tenant = self->Find(number)) tenant->OnLease(event, why);
    });
  }
}

void SharedLease::TellGranted(uint64_t number, Duration delay) {
  auto tell = [self = shared_from_this(), number, generation = generation_] {
    std::shared_ptr<Tenant> tenant = self->Find(number);
    if (tenant == nullptr || self->generation_ != generation) return;
    tenant->OnLease(LeaseEvent::kGranted, absl::OkStatus());
  };
  if (delay == Duration(0)) {
    engine_.Defer(std::move(tell));
  } else {
    engine_.After(delay, std::move(tell));
  }
}

// ---- The lease
// -------------------------------------------------------------------------------------

void SharedLease::Open() {
  if (tenants_.empty() || opening_ != 0 || session_ != nullptr) return;
  const uint64_t generation = ++generation_;
  opening_ = SessionCore::Open(
      // A lease that was not renewed in time may still live: until it ends its keys can move to the
      // next one, and no reader sees a healthy instance leave.
      engine_, {.ttl_seconds = ttl_seconds_, .revoke_on_loss = false}, engine_.now() + kStepTimeout,
      [weak = weak_from_this(), generation](SessionHealth health, Instant) {
        if (std::shared_ptr<SharedLease> self = weak.lock()) self->OnHealth(generation, health);
      },
      [self = shared_from_this(),
       generation](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
        self->OnOpened(generation, std::move(session));
      });
}

void SharedLease::OnOpened(uint64_t generation,
                           absl::StatusOr<std::shared_ptr<SessionCore>> session) {
  opening_ = 0;
  if (generation != generation_) {  // everybody had left; somebody may have come since
    if (session.ok()) {
      (*session)->Close(engine_.now() + kStepTimeout, [](const absl::Status&) {});
    }
    return Open();
  }
  if (!session.ok()) {
    Tell(LeaseEvent::kGrantFailed, session.status());
    return OpenLater();
  }
  session_ = *std::move(session);
  granted_at_ = engine_.now();
  const int64_t others = static_cast<int64_t>(tenants_.size()) - 1;
  const Duration spread = had_one_ ? std::min(kSpreadMax, kSpreadPerTenant * others) : Duration(0);
  // One after the other in random order: a thousand keys of a thousand processes come back to a
  // cluster that has just got up.
  for (const auto& [number, tenant] : tenants_) {
    TellGranted(number,
                spread == Duration(0) ? spread : Duration(engine_.prng().Below(spread.count())));
  }
  had_one_ = true;
}

void SharedLease::OpenLater() {
  engine_.CancelTimer(open_again_);
  open_again_ = engine_.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine_.prng()),
                              [self = shared_from_this()] { self->Open(); });
}

void SharedLease::OnHealth(uint64_t generation, SessionHealth health) {
  if (generation != generation_ || session_ == nullptr) return;
  if (health == SessionHealth::kLost) return Lose(absl::UnavailableError("the lease is lost"));
  if (health == SessionHealth::kSuspect) {
    Tell(LeaseEvent::kSuspect, absl::UnavailableError("the lease's renewals go unanswered"));
  } else {
    Tell(LeaseEvent::kAlive, absl::OkStatus());
  }
}

void SharedLease::Lose(const absl::Status& why) {
  session_ = nullptr;
  ++generation_;
  if (engine_.now() - granted_at_ > kSettled) failures_ = 0;
  if (complain_ != nullptr) {
    complain_(absl::StrCat(why.message(), "; its ", tenants_.size(),
                           " registrations go on with the next one"));
  }
  REACHED("registry: a lease is lost");
  Tell(LeaseEvent::kLost, why);
  if (MUTANT("registration-ends-with-its-lease")) return;
  OpenLater();
}

void SharedLease::OnNotFound(LeaseId lease) {
  // The keep-alive of a session that is not ours tells its owner, and then us.
  if (borrowed_ || session_ == nullptr || session_->lease() != lease) return;
  std::shared_ptr<SessionCore> session = session_;
  Lose(absl::UnavailableError("the lease is gone"));
  session->Close(engine_.now() + kStepTimeout, [](const absl::Status&) {});
}

// ---- Writes
// ----------------------------------------------------------------------------------------

void SharedLease::Write(uint64_t tenant, Engine::Work start) {
  if (writes_ >= kWritesMax) {
    waiting_.emplace_back(tenant, std::move(start));
    return;
  }
  ++writes_;
  start();
}

void SharedLease::WriteDone() {
  --writes_;
  if (waiting_.empty() || writes_ >= kWritesMax) return;
  Engine::Work next = std::move(waiting_.front().second);
  waiting_.pop_front();
  ++writes_;
  engine_.Defer(std::move(next));
}

void SharedLease::Sweep(const std::string& key, Duration delay) {
  if (session_ == nullptr) return;  // it goes with the lease
  engine_.After(delay, [weak = weak_from_this(), key, generation = generation_] {
    std::shared_ptr<SharedLease> self = weak.lock();
    if (self != nullptr && self->generation_ == generation) self->SweepNow(key, 0);
  });
}

void SharedLease::SweepNow(const std::string& key, int failures) {
  if (session_ == nullptr) return;
  for (const auto& [number, tenant] : tenants_) {
    const std::shared_ptr<Tenant> owner = tenant.lock();
    if (owner != nullptr && owner->key() == key) return;
  }
  calls::Txn(engine_, {.conditions = {LeaseOf(key) == session_->lease()}, .success = {Delete(key)}},
             engine_.now() + kStepTimeout,
             [weak = weak_from_this(), key, failures,
              generation = generation_](const absl::StatusOr<TxnResult>& result) {
               std::shared_ptr<SharedLease> self = weak.lock();
               if (result.ok() || self == nullptr || self->generation_ != generation) return;
               self->engine_.After(
                   FullJitter(failures, kRetryBase, kRetryCap, self->engine_.prng()),
                   [weak, key, failures, generation] {
                     std::shared_ptr<SharedLease> self = weak.lock();
                     if (self == nullptr || self->generation_ != generation) return;
                     self->SweepNow(key, failures + 1);
                   });
             });
}

}  // namespace conclave
