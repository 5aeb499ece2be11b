#include "conclave/lock/multi_lock.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/lock/naming.h"

namespace conclave {

MultiLockGuard::MultiLockGuard(std::shared_ptr<Claim> claim) : claim_(std::move(claim)) {}
MultiLockGuard::MultiLockGuard(MultiLockGuard&&) noexcept = default;
MultiLockGuard& MultiLockGuard::operator=(MultiLockGuard&& other) noexcept {
  std::swap(claim_, other.claim_);
  return *this;
}
MultiLockGuard::~MultiLockGuard() {
  if (claim_ != nullptr) claim_->ReleaseAsync();
}

int64_t MultiLockGuard::token() const { return claim_->token(); }
std::vector<std::string> MultiLockGuard::keys() const { return claim_->keys(); }
std::vector<Compare> MultiLockGuard::StillHeld() const {
  std::vector<Compare> conditions;
  for (const std::string& key : claim_->keys()) {
    conditions.push_back(CreateRevision(key) == claim_->token());
  }
  return conditions;
}
bool MultiLockGuard::held() const { return claim_ != nullptr && claim_->held(); }
std::stop_token MultiLockGuard::stop_token() const { return claim_->stop_token(); }
absl::Status MultiLockGuard::Unlock(const CallOptions& call) {
  if (claim_ == nullptr) return absl::AbortedError("it was given up before");
  return claim_->Release(call);
}

MultiLock::MultiLock(const Session& session, std::vector<std::string> names,
                     const MultiLockOptions& options)
    : session_(session.rep()), names_(std::move(names)), options_(options) {
  std::sort(names_.begin(), names_.end());
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
}

absl::StatusOr<std::optional<MultiLockGuard>> MultiLock::Acquire(bool only_try,
                                                                 const CallOptions& call) {
  if (names_.empty() || names_.size() > kMultiLockNamesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a MultiLock has 1 to ", kMultiLockNamesMax, " names, not ", names_.size()));
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    if (absl::Status good = CheckLockName(names_[i]); !good.ok()) return good;
    // The keys of a lock are all keys under its name and a slash. Sorted, what begins with another
    // name need not follow it at once.
    for (const std::string& other : names_) {
      if (Prefix(other + "/").Contains(names_[i])) {
        return absl::InvalidArgumentError(
            absl::StrCat("the lock ", names_[i], " lies within the lock ", other));
      }
    }
  }
  if (absl::Status info = CheckLockInfo(options_.info); !info.ok()) return info;
  if (absl::Status holder = CheckLockInfo(options_.holder); !holder.ok()) return holder;
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  const std::string holder = options_.holder.empty() ? HostAndPid() : options_.holder;
  Claim::Request request{.kind = "multi_lock",
                         .value = DescribeHolder(holder, options_.info),
                         .only_try = only_try,
                         .rule = std::make_shared<OneAtATime>(OneAtATime::Options{
                             .names = names_, .heed_hold = true, .holder = holder})};
  for (const std::string& name : names_) {
    request.keys.push_back(LeaseKey(name, session_->lease()));
    request.local_queues.push_back(name + "/");
    request.companions.push_back(ReleaseMarkerKey(name));
  }
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, request, only_try ? Bounded(session_, call) : call);
  if (!attempt.ok()) return attempt.status();
  if (attempt->claim == nullptr) return std::optional<MultiLockGuard>();
  return std::optional<MultiLockGuard>(MultiLockGuard(std::move(attempt->claim)));
}

absl::StatusOr<MultiLockGuard> MultiLock::Lock(const CallOptions& call) {
  absl::StatusOr<std::optional<MultiLockGuard>> guard = Acquire(false, call);
  if (!guard.ok()) return guard.status();
  return **std::move(guard);
}

absl::StatusOr<std::optional<MultiLockGuard>> MultiLock::TryLock(const CallOptions& call) {
  return Acquire(true, call);
}

}  // namespace conclave
