#include "conclave/lock/rw_mutex.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/lock/core/rw_rule.h"
#include "conclave/lock/naming.h"

namespace conclave {

absl::Status ReadGuard::Upgrade() const {
  return absl::FailedPreconditionError(
      "a read lock cannot become a write lock: two that both tried would wait for each other; "
      "unlock it, take the write lock, and read again");
}

absl::StatusOr<ReadGuard> WriteGuard::Downgrade(const CallOptions& call) && {
  std::shared_ptr<Claim> claim = std::move(claim_);
  if (claim == nullptr) return absl::AbortedError("it was given up before");
  // That the key is written once more is what makes it a reader's.
  absl::Status downgraded = claim->Update(claim->value(), call);
  if (downgraded.ok()) return ReadGuard(std::move(claim));
  claim->ReleaseAsync();
  return downgraded;
}

RWMutex::RWMutex(const Session& session, std::string_view name, const RWMutexOptions& options)
    : session_(session.rep()), name_(name), options_(options) {}

absl::Status RWMutex::Check() const {
  if (absl::Status name = CheckLockName(name_); !name.ok()) return name;
  if (absl::Status info = CheckLockInfo(options_.info); !info.ok()) return info;
  if (absl::Status holder = CheckLockInfo(options_.holder); !holder.ok()) return holder;
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  return absl::OkStatus();
}

// nullopt: a try that found it taken.
template <typename Guard>
absl::StatusOr<std::optional<Guard>> RWMutex::Acquire(bool write, bool only_try,
                                                      const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  Claim::Request request{
      .kind = write ? "rw_mutex_write" : "rw_mutex_read",
      .value =
          DescribeHolder(options_.holder.empty() ? HostAndPid() : options_.holder, options_.info),
      .only_try = only_try,
      .number_keys = true};
  if (write) {
    request.rule = std::make_shared<WriteRule>(name_);
  } else {
    request.rule = std::make_shared<ReadRule>(name_);
  }
  request.keys = {
      absl::StrCat(write ? WritePrefix(name_) : ReadPrefix(name_), absl::Hex(session_->lease()))};
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, request, only_try ? Bounded(session_, call) : call);
  if (!attempt.ok()) return attempt.status();
  if (attempt->claim == nullptr) return std::optional<Guard>();
  return std::optional<Guard>(Guard(std::move(attempt->claim)));
}

absl::StatusOr<ReadGuard> RWMutex::ReadLock(const CallOptions& call) {
  absl::StatusOr<std::optional<ReadGuard>> guard = Acquire<ReadGuard>(false, false, call);
  if (!guard.ok()) return guard.status();
  return **std::move(guard);
}

absl::StatusOr<WriteGuard> RWMutex::WriteLock(const CallOptions& call) {
  absl::StatusOr<std::optional<WriteGuard>> guard = Acquire<WriteGuard>(true, false, call);
  if (!guard.ok()) return guard.status();
  return **std::move(guard);
}

absl::StatusOr<std::optional<ReadGuard>> RWMutex::TryReadLock(const CallOptions& call) {
  return Acquire<ReadGuard>(false, true, call);
}

absl::StatusOr<std::optional<WriteGuard>> RWMutex::TryWriteLock(const CallOptions& call) {
  return Acquire<WriteGuard>(true, true, call);
}

absl::StatusOr<std::vector<RWQueueEntry>> RWMutex::Queue(const CallOptions& call) {
  if (absl::Status good = Check(); !good.ok()) return good;
  absl::StatusOr<RangeResult> range =
      Client(session_->impl())
          .Range(Prefix(name_ + "/"),
                 {.sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision},
                 call);
  if (!range.ok()) return range.status();
  const KeyRange writers = Prefix(WritePrefix(name_));
  std::vector<RWQueueEntry> queue;
  for (const KeyValue& kv : range->kvs) {
    queue.push_back(
        {.who = LockInfoOf(kv), .writer = writers.Contains(kv.key) && !IsDowngraded(kv)});
  }
  return queue;
}

}  // namespace conclave
