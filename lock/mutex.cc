#include "conclave/lock/mutex.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/lock/naming.h"

namespace conclave {
namespace {

Claim::Request MakeRequest(const SessionRep& session, const std::string& name,
                           const MutexOptions& options, bool only_try) {
  const std::string holder = options.holder.empty() ? HostAndPid() : options.holder;
  return {.kind = "mutex",
          .name = name,
          .value = DescribeHolder(holder, options.info),
          .only_try = only_try,
          .rule = std::make_shared<OneAtATime>(
              OneAtATime::Options{.names = {name}, .heed_hold = true, .holder = holder}),
          .keys = {LeaseKey(name, session.lease())},
          .local_queues = {absl::StrCat(name, "/")},
          .companions = {ReleaseMarkerKey(name)},
          .delay = options.lock_delay,
          .holder = holder,
          .overrun = {.max_hold = options.max_hold, .on_overrun = options.on_overrun}};
}

}  // namespace

Mutex::Mutex(const Session& session, std::string_view name, const MutexOptions& options)
    : session_(session.rep()), name_(name), options_(options) {}

absl::Status Mutex::Check() const {
  if (absl::Status name = CheckLockName(name_); !name.ok()) return name;
  if (absl::Status info = CheckLockInfo(options_.info); !info.ok()) return info;
  if (absl::Status holder = CheckLockInfo(options_.holder); !holder.ok()) return holder;
  if (options_.lock_delay < absl::ZeroDuration() || options_.lock_delay > kLockDelayMax) {
    return absl::InvalidArgumentError("lock_delay is from zero to one hour");
  }
  if (options_.max_hold <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("max_hold is more than zero");
  }
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  return absl::OkStatus();
}

absl::StatusOr<LockGuard> Mutex::Lock(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, MakeRequest(*session_, name_, options_, false), call);
  if (!attempt.ok()) return attempt.status();
  return LockGuard(std::move(attempt->claim), ReleaseMarkerKey(name_));
}

void Mutex::LockAsync(const CallOptions& call,
                      absl::AnyInvocable<void(absl::StatusOr<LockGuard>)> done) {
  if (session_ == nullptr) return done(Check());
  Claim::Acquired acquired = [impl = session_->impl(), marker = ReleaseMarkerKey(name_),
                              done =
                                  std::move(done)](absl::StatusOr<Claim::Attempt> attempt) mutable {
    impl->callbacks().Run([marker = std::move(marker), done = std::move(done),
                           attempt = std::move(attempt)]() mutable {
      if (!attempt.ok()) return done(attempt.status());
      done(LockGuard(std::move(attempt->claim), marker));
    });
  };
  if (absl::Status good = Check(); !good.ok()) return acquired(good);
  Claim::AcquireAsync(session_, MakeRequest(*session_, name_, options_, false), call,
                      std::move(acquired));
}

absl::StatusOr<TryLockResult> Mutex::TryLock(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  absl::StatusOr<Claim::Attempt> attempt = Claim::Acquire(
      session_, MakeRequest(*session_, name_, options_, true), Bounded(session_, call));
  if (!attempt.ok()) return attempt.status();
  TryLockResult result;
  if (attempt->claim != nullptr) {
    result.guard = LockGuard(std::move(attempt->claim), ReleaseMarkerKey(name_));
  }
  if (attempt->owner.has_value()) result.holder = LockInfoOf(*attempt->owner);
  return result;
}

absl::StatusOr<std::vector<LockInfo>> Mutex::Queue(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  return ReadQueue(session_, Prefix(absl::StrCat(name_, "/")), call);
}

absl::Status Mutex::RequestRelease(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  const Client client(session_->impl());
  absl::StatusOr<RangeResult> owner = client.Range(
      Prefix(absl::StrCat(name_, "/")),
      {.limit = 1, .sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision},
      call);
  if (!owner.ok()) return owner.status();
  if (owner->kvs.empty()) return absl::NotFoundError("nobody holds the lock");
  const KeyValue& kv = owner->kvs.front();
  // On our own lease, so that it does not stay for ever if the holder dies; the holder deletes it
  // along with its key. If the condition does not hold, the lock is given up already.
  return client.Txn()
      .If(CreateRevision(kv.key) == kv.create_revision)
      .Then(conclave::Put(ReleaseMarkerKey(name_), std::to_string(kv.create_revision),
                          {.lease = session_->lease()}))
      .Commit(call)
      .status();
}

absl::Status WithLock(const Session& session, std::string_view name, const MutexOptions& options,
                      absl::FunctionRef<absl::Status(const LockGuard&)> work,
                      const CallOptions& call) {
  absl::StatusOr<LockGuard> guard = Mutex(session, name, options).Lock(call);
  if (!guard.ok()) return guard.status();
  absl::Status worked = work(*guard);
  absl::Status unlocked = guard->Unlock();
  return worked.ok() ? unlocked : worked;
}

}  // namespace conclave
