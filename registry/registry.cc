#include "conclave/registry/registry.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/waiting_thread.h"
#include "conclave/registry/advertise.h"
#include "conclave/registry/health_monitor.h"
#include "conclave/registry/registrar.h"
#include "conclave/registry/registration_metrics.h"
#include "conclave/registry/registry_impl.h"

namespace conclave {
namespace {

constexpr absl::Duration kTtlMin = absl::Seconds(1);
constexpr absl::Duration kTtlMax = absl::Hours(24);
constexpr absl::Duration kLastTimeout = absl::Seconds(1);
constexpr absl::Duration kPatienceMax = absl::Hours(24 * 365);  // what a clock can add without harm

absl::Status ValidateOptions(const RegistrationOptions& options) {
  if (options.session != nullptr && options.isolated_lease) {
    return absl::InvalidArgumentError("either a session of one's own or a lease of its own");
  }
  if (options.session != nullptr && options.session->rep() == nullptr) {
    return absl::InvalidArgumentError("the session is none: open it first");
  }
  if (options.session == nullptr && (options.ttl < kTtlMin || options.ttl > kTtlMax)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a registration's TTL is from 1s to 24h, not ", absl::FormatDuration(options.ttl),
        ": shorter than a second no server keeps, and longer than a day a dead "
        "instance would stay"));
  }
  if (options.health.has_value()) return ValidateHealthCheck(*options.health);
  return absl::OkStatus();
}

absl::Status ValidateOverrideName(std::string_view service, std::string_view name) {
  if (absl::Status status = ValidateServiceName(service); !status.ok()) return status;
  if (name.empty() || name.find('/') != std::string_view::npos) {
    return absl::InvalidArgumentError("an override is for an id or an address: no slash in it");
  }
  return absl::OkStatus();
}

}  // namespace

// ---- Registration
// ----------------------------------------------------------------------------------

struct Registration::Rep {
  Rep(std::shared_ptr<RegistryImpl> of, Instance wanted, RegistrationOptions options)
      : registry(std::move(of)),
        client(registry->client()),
        codec(CodecFor(options.format)),
        taken(absl::StrCat(std::string(FormatName(options.format)), " ", codec.Key(wanted, 0),
                           codec.LeaseInKey() ? wanted.address : "")),
        name(absl::StrCat(wanted.service, " at ", wanted.address)),
        metrics(client->metrics(), wanted),
        on_state(std::move(options.on_state)),
        instance(std::move(wanted)) {}

  void Start(const std::shared_ptr<Rep>& self, Engine& engine, std::shared_ptr<SharedLease> lease);
  void OnEvent(const std::shared_ptr<Rep>& self, const Registrar::Event& event);
  void Say(const Registrar::Event& event) const;
  void Release() {
    if (!released.exchange(true)) registry->Release(taken);
  }

  const std::shared_ptr<RegistryImpl> registry;
  const std::shared_ptr<ClientImpl> client;
  const Codec& codec;
  const std::string taken;  // what stands for its key, whatever the lease
  const std::string name;   // for the log
  std::atomic<bool> released = false;
  std::shared_ptr<Registrar> registrar;  // on the loop's thread; set before anything else is posted
  std::shared_ptr<HealthMonitor> health;  // set before anybody else sees the object; may be null
  RegistrationMetrics metrics;            // on the loop's thread
  GuardedCallback<RegState, const absl::Status&> on_state;
  std::mutex mutex;
  std::condition_variable changed;
  Instance instance;                     // guarded by mutex
  RegState state = RegState::kStarting;  // guarded by mutex
  absl::Status why;                      // guarded by mutex
  absl::Time since = absl::Now();        // guarded by mutex
};

void Registration::Rep::Start(const std::shared_ptr<Rep>& self, Engine& engine,
                              std::shared_ptr<SharedLease> lease) {
  Instance wanted;
  {
    std::lock_guard lock(mutex);
    wanted = instance;
  }
  registrar = std::make_shared<Registrar>(
      engine, std::move(lease), registry->Overrides(engine), codec, std::move(wanted),
      [weak = std::weak_ptr<Rep>(self)](const Registrar::Event& event) {
        if (std::shared_ptr<Rep> rep = weak.lock()) rep->OnEvent(rep, event);
      });
  if (health != nullptr) {
    registrar->SetHealth(absl::UnavailableError("no health check has been passed yet"));
    health->Start(engine);
  }
  registrar->Start();
}

void Registration::Rep::OnEvent(const std::shared_ptr<Rep>& self, const Registrar::Event& event) {
  metrics.OnEvent(event);
  bool is_news = false;
  {
    std::lock_guard lock(mutex);
    is_news = state != event.state || why != event.why;
    if (state != event.state) since = absl::Now();
    state = event.state;
    why = event.why;
  }
  if (!is_news) return;
  changed.notify_all();
  Say(event);
  client->callbacks().Run(
      [self, state = event.state, why = event.why] { self->on_state.Run(state, why); });
}

void Registration::Rep::Say(const Registrar::Event& event) const {
  // A lost lease is told once, by the lease.
  const bool bad = absl::IsAlreadyExists(event.why);
  client->Log(bad ? LogLevel::kWarning : LogLevel::kDebug,
              absl::StrCat("registry: ", name, " is ", std::string(RegStateName(event.state)),
                           event.why.ok() ? "" : ": ", event.why.ok() ? "" : event.why.message()));
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
  LastWord last_word;
  (void)Deregister({.timeout = kLastTimeout});
  rep_->on_state.Cancel();
}

RegState Registration::state() const {
  if (rep_ == nullptr) return RegState::kGone;
  std::lock_guard lock(rep_->mutex);
  return rep_->state;
}

absl::Status Registration::status() const {
  if (rep_ == nullptr) return absl::FailedPreconditionError("a registration of nothing");
  std::lock_guard lock(rep_->mutex);
  return rep_->why;
}

absl::Time Registration::since() const {
  if (rep_ == nullptr) return absl::InfinitePast();
  std::lock_guard lock(rep_->mutex);
  return rep_->since;
}

Instance Registration::instance() const {
  if (rep_ == nullptr) return {};
  std::lock_guard lock(rep_->mutex);
  return rep_->instance;
}

absl::Status Registration::WaitRegistered(absl::Duration timeout) const {
  if (rep_ == nullptr) return absl::FailedPreconditionError("a registration of nothing");
  const Duration patience = absl::ToChronoNanoseconds(std::min(timeout, kPatienceMax));
  const WaitingThread waiting(rep_->client, rep_->client->loop().Now() + patience, [this] {
    { std::lock_guard lock(rep_->mutex); }  // it either has not looked yet, or is waiting
    rep_->changed.notify_all();
  });
  std::unique_lock lock(rep_->mutex);
  const auto settled = [this] {
    return rep_->state == RegState::kRegistered || rep_->state == RegState::kDraining ||
           rep_->state == RegState::kGone;
  };
  rep_->changed.wait(lock, [&] { return settled() || waiting.expired(); });
  if (!settled()) {
    return absl::DeadlineExceededError(
        absl::StrCat("not registered: ", rep_->why.ok() ? "no answer yet" : rep_->why.ToString()));
  }
  if (rep_->state == RegState::kGone) return absl::FailedPreconditionError("it is deregistered");
  return absl::OkStatus();
}

absl::Status Registration::Update(const std::function<void(Instance&)>& change) {
  if (rep_ == nullptr) return absl::FailedPreconditionError("a registration of nothing");
  std::lock_guard lock(rep_->mutex);
  Instance next = rep_->instance;
  change(next);
  next.service = rep_->instance.service;
  next.id = rep_->instance.id;
  next.address = rep_->instance.address;
  if (absl::Status status = ValidateInstance(next); !status.ok()) return status;
  rep_->instance = std::move(next);
  // Posted under the lock: updates reach the store in the order they were made.
  rep_->client->loop().Post(
      [rep = rep_, instance = rep_->instance](Engine&) { rep->registrar->Update(instance); });
  return absl::OkStatus();
}

void Registration::Drain() {
  if (rep_ == nullptr) return;
  rep_->client->loop().Post([rep = rep_](Engine&) { rep->registrar->SetDraining(true); });
}

void Registration::Undrain() {
  if (rep_ == nullptr) return;
  rep_->client->loop().Post([rep = rep_](Engine&) { rep->registrar->SetDraining(false); });
}

absl::Status Registration::Withdraw(const CallOptions& call) {
  if (rep_ == nullptr) return absl::OkStatus();
  if (rep_->health != nullptr) rep_->health->Cancel();  // nobody asks any more
  return WaitForCall<bool>(
             *rep_->client, call,
             [rep = rep_, deadline = rep_->client->DeadlineOf(call)](
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
  if (rep_->health != nullptr) rep_->health->Cancel();
  absl::Status status =
      WaitForCall<bool>(
          *rep_->client, call,
          [rep = rep_, deadline = rep_->client->DeadlineOf(call)](
              Engine&, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
            rep->registrar->Stop(deadline, [done = std::move(done)](const absl::Status& s) mutable {
              if (s.ok()) return done(true);
              done(s);
            });
            return 0;
          })
          .status();
  rep_->Release();
  return status;
}

// ---- Registry
// --------------------------------------------------------------------------------------

Registry::Registry(const Client& client, RegistryOptions options)
    : impl_(std::make_shared<RegistryImpl>(client.impl(), std::move(options))) {}

absl::StatusOr<Registration> Registry::Register(Instance instance, RegistrationOptions options) {
  if (absl::Status status = ValidateServiceName(instance.service); !status.ok()) return status;
  absl::StatusOr<std::string> address =
      AdvertiseAddress(instance.address, impl_->client()->endpoints());
  if (!address.ok()) return address.status();
  instance.address = *std::move(address);
  if (absl::Status status = ValidateInstance(instance); !status.ok()) return status;
  if (absl::Status status = ValidateOptions(options); !status.ok()) return status;
  const Codec& codec = CodecFor(options.format);
  if (absl::Status status = codec.Validate(instance); !status.ok()) return status;

  const int64_t ttl_seconds = absl::ToInt64Seconds(absl::Ceil(options.ttl, absl::Seconds(1)));
  const bool isolated = options.isolated_lease || codec.LeaseInKey();
  const std::shared_ptr<SessionRep> session =
      options.session == nullptr ? nullptr : options.session->rep();
  std::optional<HealthCheck> health = std::move(options.health);
  auto rep = std::make_shared<Registration::Rep>(impl_, std::move(instance), std::move(options));
  if (!impl_->Take(rep->taken)) {
    rep->released = true;
    return absl::AlreadyExistsError(
        absl::StrCat(rep->instance.address, " is registered as \"", rep->instance.service,
                     "\" already by this process: deregister it first, or Update it"));
  }
  if (health.has_value()) {
    const bool polled = health->check != nullptr;
    rep->health = std::make_shared<HealthMonitor>(
        impl_->client(), *std::move(health), polled ? impl_->checks() : nullptr,
        [weak = std::weak_ptr<Registration::Rep>(rep)](const absl::Status& verdict) {
          if (auto self = weak.lock()) self->registrar->SetHealth(verdict);
        });
  }
  impl_->client()->loop().Post([rep, session, isolated, ttl_seconds](Engine& engine) {
    std::shared_ptr<SharedLease> lease;
    if (session != nullptr) {
      lease = std::make_shared<SharedLease>(engine, session->core());
    } else if (isolated) {
      lease = rep->registry->NewLease(engine, ttl_seconds);
    } else {
      lease = rep->registry->LeaseOfTtl(engine, ttl_seconds);
    }
    rep->Start(rep, engine, std::move(lease));
  });
  return Registration(std::move(rep));
}

absl::Status Registry::SetOverride(std::string_view service, std::string_view name,
                                   const Override& value, const CallOptions& call) const {
  if (absl::Status status = ValidateOverrideName(service, name); !status.ok()) return status;
  const std::string text = OverrideText(value);
  if (absl::Status status = ParseOverride(text).status(); !status.ok()) return status;
  return Client(impl_->client())
      .Put(OverrideKey(impl_->options().override_prefix, service, name), text, {}, call)
      .status();
}

absl::Status Registry::ClearOverride(std::string_view service, std::string_view name,
                                     const CallOptions& call) const {
  if (absl::Status status = ValidateOverrideName(service, name); !status.ok()) return status;
  return Client(impl_->client())
      .Delete(OverrideKey(impl_->options().override_prefix, service, name), {}, call)
      .status();
}

absl::StatusOr<std::vector<OverrideEntry>> Registry::ListOverrides(std::string_view service,
                                                                   const CallOptions& call) const {
  const std::string& prefix = impl_->options().override_prefix;
  if (prefix.empty()) return absl::FailedPreconditionError("this registry heeds no overrides");
  const std::string within = service.empty() ? prefix : OverrideKey(prefix, service, "");
  absl::StatusOr<RangeResult> range = Client(impl_->client()).Range(Prefix(within), {}, call);
  if (!range.ok()) return range.status();
  std::vector<OverrideEntry> entries;
  for (const KeyValue& kv : range->kvs) {
    const std::string rest = kv.key.substr(prefix.size());
    const size_t slash = rest.rfind('/');
    if (slash == std::string::npos) continue;
    OverrideEntry entry{
        .service = rest.substr(0, slash), .name = rest.substr(slash + 1), .text = kv.value};
    if (!service.empty() && entry.service != service) continue;
    if (absl::StatusOr<Override> value = ParseOverride(kv.value); value.ok()) entry.value = *value;
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace conclave
