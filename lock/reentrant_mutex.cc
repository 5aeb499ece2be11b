#include "conclave/lock/reentrant_mutex.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace conclave {

// Who holds it through this object, and who waits. At most one holding is current: the Mutex
// excludes the others.
struct ReentrantMutex::State {
  std::mutex mutex;
  std::weak_ptr<ReentrantGuard::Holding> current;  // guarded by mutex
  std::vector<LockOwner> waiting;                  // guarded by mutex
};

// One time that the lock is held, and how many guards share it.
struct ReentrantGuard::Holding {
  Holding(LockOwner who, LockGuard lock) : owner(std::move(who)), guard(std::move(lock)) {}

  const LockOwner owner;
  LockGuard guard;
  std::mutex mutex;
  int count = 1;  // guarded by mutex; 0: given up

  // False: it was given up a moment ago.
  bool Enter() {
    std::lock_guard lock(mutex);
    if (count == 0) return false;
    ++count;
    return true;
  }
  bool LeaveIsLast() {
    std::lock_guard lock(mutex);
    return --count == 0;
  }
};

ReentrantGuard::ReentrantGuard(std::shared_ptr<Holding> holding) : holding_(std::move(holding)) {}
ReentrantGuard::ReentrantGuard(ReentrantGuard&&) noexcept = default;
ReentrantGuard& ReentrantGuard::operator=(ReentrantGuard&& other) noexcept {
  std::swap(holding_, other.holding_);
  std::swap(unlocked_, other.unlocked_);
  return *this;
}
ReentrantGuard::~ReentrantGuard() {
  if (holding_ != nullptr && !unlocked_) (void)holding_->LeaveIsLast();  // the last one unlocks it
}

int64_t ReentrantGuard::token() const { return holding_->guard.token(); }
Compare ReentrantGuard::StillHeld() const { return holding_->guard.StillHeld(); }
bool ReentrantGuard::held() const {
  return holding_ != nullptr && !unlocked_ && holding_->guard.held();
}
std::stop_token ReentrantGuard::stop_token() const { return holding_->guard.stop_token(); }
std::stop_token ReentrantGuard::release_requested() const {
  return holding_->guard.release_requested();
}

absl::Status ReentrantGuard::Unlock(const CallOptions& call) {
  if (holding_ == nullptr || std::exchange(unlocked_, true)) {
    return absl::AbortedError("it was given up before");
  }
  if (holding_->LeaveIsLast()) return holding_->guard.Unlock(call);
  return holding_->guard.held() ? absl::OkStatus() : absl::AbortedError("the lock is lost");
}

ReentrantMutex::ReentrantMutex(const Session& session, std::string_view name,
                               const MutexOptions& options)
    : state_(std::make_shared<State>()), mutex_(session, name, options) {}
ReentrantMutex::~ReentrantMutex() = default;

absl::StatusOr<ReentrantGuard> ReentrantMutex::Lock(const LockOwner& owner,
                                                    const CallOptions& call) {
  {
    std::lock_guard lock(state_->mutex);
    std::shared_ptr<ReentrantGuard::Holding> current = state_->current.lock();
    if (current != nullptr && current->owner == owner && current->Enter()) {
      ReentrantGuard again(std::move(current));
      if (again.held()) return again;
      return absl::AbortedError("the lock that this owner holds is lost: give up its guards");
    }
    if (std::find(state_->waiting.begin(), state_->waiting.end(), owner) != state_->waiting.end()) {
      return absl::FailedPreconditionError(
          "this owner is waiting for the lock in another thread: an owner is one flow of control");
    }
    state_->waiting.push_back(owner);
  }
  absl::StatusOr<LockGuard> guard = mutex_.Lock(call);
  std::lock_guard lock(state_->mutex);
  std::erase(state_->waiting, owner);
  if (!guard.ok()) return guard.status();
  auto holding = std::make_shared<ReentrantGuard::Holding>(owner, *std::move(guard));
  state_->current = holding;
  return ReentrantGuard(std::move(holding));
}

}  // namespace conclave
