// ReentrantMutex: a Mutex whose holder may lock it again, counted in this process.
//
//   conclave::ReentrantMutex mutex(session, "locks/tree");
//   conclave::LockOwner me;
//   auto outer = mutex.Lock(me);
//   auto inner = mutex.Lock(me);  // at once: it is ours already
//
// Who "we" are is said by an explicit LockOwner, not guessed from the thread: one flow of control,
// which may wander between threads but does not ask from two at once. Other owners, in this process
// or elsewhere, wait as for any Mutex of that name, and exclude it. Each guard counts; the lock is
// given up with the last one. Reentrance hides how long a lock is held: prefer Mutex where you can.
#pragma once

#include <memory>
#include <stop_token>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/lock/guard.h"
#include "conclave/lock/mutex.h"

namespace conclave {

// An identity; copies are the same owner.
class LockOwner {
 public:
  LockOwner() : identity_(std::make_shared<char>()) {}
  friend bool operator==(const LockOwner&, const LockOwner&) = default;

 private:
  std::shared_ptr<char> identity_;
};

class [[nodiscard]] ReentrantGuard {
 public:
  ReentrantGuard(ReentrantGuard&&) noexcept;
  ReentrantGuard& operator=(ReentrantGuard&&) noexcept;
  ~ReentrantGuard();

  // As for LockGuard; the same for all guards of one holding.
  int64_t token() const;
  Compare StillHeld() const;
  bool held() const;
  std::stop_token stop_token() const;
  std::stop_token release_requested() const;
  // Counts down; the last one unlocks. Aborted: lost before. Once unlocked it is not held.
  absl::Status Unlock(const CallOptions& call = {});

 private:
  friend class ReentrantMutex;
  struct Holding;
  explicit ReentrantGuard(std::shared_ptr<Holding> holding);
  std::shared_ptr<Holding> holding_;
  bool unlocked_ = false;
};

class ReentrantMutex {
 public:
  ReentrantMutex(const Session& session, std::string_view name, const MutexOptions& options = {});
  ~ReentrantMutex();
  ReentrantMutex(const ReentrantMutex&) = delete;
  ReentrantMutex& operator=(const ReentrantMutex&) = delete;

  // As Mutex::Lock; at once if `owner` holds it through this object. Aborted if he did and it was
  // lost, until he has given up all his guards. FailedPrecondition: `owner` is waiting for it in
  // another thread already.
  absl::StatusOr<ReentrantGuard> Lock(const LockOwner& owner, const CallOptions& call = {});

 private:
  struct State;
  std::shared_ptr<State> state_;
  Mutex mutex_;
};

}  // namespace conclave
