#include "conclave/registry/registry.h"

#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/registry/advertise.h"

namespace conclave {
namespace {

constexpr absl::Duration kTtlMin = absl::Seconds(1);
constexpr absl::Duration kLastTimeout = absl::Seconds(1);

}  // namespace

struct Registration::Rep {
  Rep(std::shared_ptr<ClientImpl> client, Instance wanted,
      absl::AnyInvocable<void(RegState, const absl::Status&)> callback)
      : impl(std::move(client)), on_state(std::move(callback)), instance(std::move(wanted)) {}

  const std::shared_ptr<ClientImpl> impl;
  std::shared_ptr<Registrar> registrar;  // on the loop's thread; set before anything else is posted
  GuardedCallback<RegState, const absl::Status&> on_state;
  std::mutex mutex;
  std::condition_variable changed;
  Instance instance;                     // guarded by mutex
  RegState state = RegState::kStarting;  // guarded by mutex
  absl::Status why;                      // guarded by mutex
};

absl::StatusOr<Registration> Registry::Register(Instance instance, RegistrationOptions options) {
  if (absl::Status status = ValidateServiceName(instance.service); !status.ok()) return status;
  absl::StatusOr<std::string> address = AdvertiseAddress(instance.address, client_.endpoints());
  if (!address.ok()) return address.status();
  instance.address = *std::move(address);
  if (options.ttl < kTtlMin) {
    return absl::InvalidArgumentError("a registration's TTL is at least one second");
  }
  const int64_t ttl_seconds = absl::ToInt64Seconds(absl::Ceil(options.ttl, absl::Seconds(1)));
  auto rep =
      std::make_shared<Registration::Rep>(client_.impl(), instance, std::move(options.on_state));
  client_.impl()->loop().Post([rep, instance = std::move(instance), ttl_seconds](Engine& engine) {
    rep->registrar = std::make_shared<Registrar>(
        engine, instance, ttl_seconds,
        [weak = std::weak_ptr<Registration::Rep>(rep)](RegState state, const absl::Status& why) {
          std::shared_ptr<Registration::Rep> self = weak.lock();
          if (self == nullptr) return;
          {
            std::lock_guard lock(self->mutex);
            self->state = state;
            self->why = why;
          }
          self->changed.notify_all();
          Executor& callbacks = self->impl->callbacks();
          callbacks.Run([self = std::move(self), state, why] { self->on_state.Run(state, why); });
        });
    rep->registrar->Start();
  });
  return Registration(std::move(rep));
}

Registration::Registration() = default;
Registration::Registration(std::shared_ptr<Rep> rep) : rep_(std::move(rep)) {}
Registration::Registration(Registration&&) noexcept = default;
Registration& Registration::operator=(Registration&& other) noexcept {
  std::swap(rep_, other.rep_);
  return *this;
}
Registration::~Registration() {
  if (rep_ == nullptr) return;
  (void)Deregister({.timeout = kLastTimeout});
  rep_->on_state.Cancel();
}

RegState Registration::state() const {
  if (rep_ == nullptr) return RegState::kGone;
  std::lock_guard lock(rep_->mutex);
  return rep_->state;
}

Instance Registration::instance() const {
  if (rep_ == nullptr) return {};
  std::lock_guard lock(rep_->mutex);
  return rep_->instance;
}

absl::Status Registration::WaitRegistered(absl::Duration timeout) const {
  if (rep_ == nullptr) return absl::FailedPreconditionError("a registration of nothing");
  std::unique_lock lock(rep_->mutex);
  const auto settled = [this] {
    return rep_->state == RegState::kRegistered || rep_->state == RegState::kGone;
  };
  if (!rep_->changed.wait_for(lock, absl::ToChronoMicroseconds(timeout), settled)) {
    return absl::DeadlineExceededError(
        absl::StrCat("not registered: ", rep_->why.ok() ? "no answer yet" : rep_->why.ToString()));
  }
  if (rep_->state == RegState::kGone) return absl::FailedPreconditionError("it is deregistered");
  return absl::OkStatus();
}

void Registration::Update(const std::function<void(Instance&)>& change) {
  if (rep_ == nullptr) return;
  std::lock_guard lock(rep_->mutex);
  const std::string service = rep_->instance.service;
  const std::string address = rep_->instance.address;
  change(rep_->instance);
  rep_->instance.service = service;
  rep_->instance.address = address;
  // Posted under the lock: updates reach the store in the order they were made.
  rep_->impl->loop().Post(
      [rep = rep_, instance = rep_->instance](Engine&) { rep->registrar->Update(instance); });
}

absl::Status Registration::Withdraw(const CallOptions& call) {
  if (rep_ == nullptr) return absl::OkStatus();
  return WaitForCall<bool>(
             *rep_->impl, call,
             [rep = rep_, deadline = rep_->impl->DeadlineOf(call)](
                 Engine&, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
               rep->registrar->Withdraw(deadline,
                                        [done = std::move(done)](const absl::Status& s) mutable {
                                          if (s.ok()) return done(true);
                                          done(s);
                                        });
               return 0;
             })
      .status();
}

absl::Status Registration::Deregister(const CallOptions& call) {
  if (rep_ == nullptr) return absl::OkStatus();
  return WaitForCall<bool>(
             *rep_->impl, call,
             [rep = rep_, deadline = rep_->impl->DeadlineOf(call)](
                 Engine&, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
               rep->registrar->Stop(deadline,
                                    [done = std::move(done)](const absl::Status& s) mutable {
                                      if (s.ok()) return done(true);
                                      done(s);
                                    });
               return 0;
             })
      .status();
}

}  // namespace conclave
