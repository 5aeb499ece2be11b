#include "conclave/lock/semaphore.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/lock/core/semaphore_rule.h"
#include "conclave/lock/naming.h"

namespace conclave {

Semaphore::Semaphore(const Session& session, std::string_view name, const SemaphoreOptions& options)
    : session_(session.rep()), name_(name), options_(options) {}

absl::Status Semaphore::Check() const {
  if (absl::Status name = CheckLockName(name_); !name.ok()) return name;
  if (absl::Status info = CheckLockInfo(options_.info); !info.ok()) return info;
  if (absl::Status holder = CheckLockInfo(options_.holder); !holder.ok()) return holder;
  if (options_.permits < 1 || options_.permits > kPermitsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a semaphore has 1 to ", kPermitsMax, " permits, not ", options_.permits));
  }
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  return absl::OkStatus();
}

absl::StatusOr<std::optional<PermitGuard>> Semaphore::Acquire(int64_t permits, bool only_try,
                                                              const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  if (permits < 1 || permits > options_.permits) {
    return absl::InvalidArgumentError(absl::StrCat("cannot acquire ", permits, " of ",
                                                   options_.permits,
                                                   " permits: name 1 to as many as there are"));
  }
  const std::string holder = options_.holder.empty() ? HostAndPid() : options_.holder;
  const Claim::Request request{
      .kind = "semaphore",
      .value = DescribeHolder(holder, options_.info),
      .only_try = only_try,
      .rule = std::make_shared<SemaphoreRule>(name_, options_.permits, permits),
      .keys = {absl::StrCat(QueuePrefix(name_), absl::Hex(session_->lease()))},
      .number_keys = true,
      .key_suffix = PermitsSuffix(permits)};
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, request, only_try ? Bounded(session_, call) : call);
  if (!attempt.ok()) return attempt.status();
  if (attempt->claim == nullptr) return std::optional<PermitGuard>();
  return std::optional<PermitGuard>(PermitGuard(std::move(attempt->claim), permits));
}

absl::StatusOr<PermitGuard> Semaphore::Acquire(int64_t permits, const CallOptions& call) {
  absl::StatusOr<std::optional<PermitGuard>> guard = Acquire(permits, false, call);
  if (!guard.ok()) return guard.status();
  return **std::move(guard);
}

absl::StatusOr<std::optional<PermitGuard>> Semaphore::TryAcquire(int64_t permits,
                                                                 const CallOptions& call) {
  return Acquire(permits, true, call);
}

absl::StatusOr<std::vector<PermitInfo>> Semaphore::Queue(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  absl::StatusOr<std::vector<LockInfo>> all = ReadQueue(session_, Prefix(QueuePrefix(name_)), call);
  if (!all.ok()) return all.status();
  std::vector<PermitInfo> queue;
  int64_t sum = 0;
  for (LockInfo& who : *all) {
    const int64_t permits = PermitsOf(who.key, options_.permits);
    sum += permits;
    queue.push_back({.who = std::move(who), .permits = permits, .holds = sum <= options_.permits});
  }
  return queue;
}

absl::Status Semaphore::Remove(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  absl::StatusOr<TxnResult> removed = Client(session_->impl())
                                          .Txn()
                                          .If(Absent(Prefix(QueuePrefix(name_))))
                                          .Then(conclave::Delete(PermitsKey(name_)))
                                          .Commit(call);
  if (!removed.ok()) return removed.status();
  if (removed->succeeded) return absl::OkStatus();
  return absl::FailedPreconditionError("the semaphore is in use");
}

}  // namespace conclave
