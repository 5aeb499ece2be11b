// Mutex: a lock that one holder in the whole cluster has.
//
//   conclave::Mutex mutex(session, "locks/rebuild", {.info = "nightly rebuild"});
//   absl::StatusOr<conclave::LockGuard> guard = mutex.Lock({.timeout = absl::Seconds(30)});
//   if (!guard.ok()) return guard.status();
//   storage.Write(data, /*fence=*/guard->token());
//
// The lock lives on a session: whoever stops renewing his lease loses his locks. A holder that was
// stopped for longer than its lease cannot know that by itself, so the *resource* must refuse an
// older token than the newest it has seen; or, if the resource is this store, write under
// guard->StillHeld().
//
// Everybody queues in the order of arrival, and waits on one key. The keys are those of Go's
// concurrency.Mutex and of `etcdctl lock`, so all of these exclude each other. Threads of one
// session queue in the process: a Mutex of the same name in the same session excludes them as well.
//
// Names are UTF-8 without empty parts. As the keys of the lock "a" are all keys under "a/", no
// other lock may be called "a/b", and a name is used for one kind of lock. What is wrong with a
// name or an option is said by the first call: InvalidArgument.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/lock/guard.h"

namespace conclave {

struct MutexOptions {
  std::string info{};    // shown to others who ask for the queue
  std::string holder{};  // likewise; who we are. Empty: "host:pid"
  // If the holder vanishes without Unlock, the lock stays taken for this long after its lease has
  // run out: time for what it had under way to arrive or to fail. Only a contender with the same
  // `holder` need not wait. It costs two round trips more at Lock, and only clients of this library
  // honour it: Go's and etcdctl do not wait.
  absl::Duration lock_delay = absl::ZeroDuration();
  // Held for longer than this, on_overrun is called (on the callback thread), and when it has
  // returned, or after a second, the lock is given up: held() is false and the stop token fires.
  absl::Duration max_hold = absl::InfiniteDuration();
  std::function<void()> on_overrun{};
};

struct TryLockResult {
  std::optional<LockGuard> guard{};  // absent: somebody else has it
  std::optional<LockInfo> holder{};  // then this is who; absent while a lock-delay lasts
};

class Mutex {
 public:
  // The session must outlive the locking, not this object.
  Mutex(const Session& session, std::string_view name, const MutexOptions& options = {});

  // Waits for its turn; without a timeout as long as the session lives. DeadlineExceeded and
  // Cancelled as asked, with no key left behind: should the removal not be confirmed within a
  // second, it goes on behind the scenes while the session lives. Aborted at once when the session
  // is lost or our place in the queue.
  absl::StatusOr<LockGuard> Lock(const CallOptions& call = {});
  // The same without waiting: `done` runs once, on the callback thread (on this one, before the
  // return, if there is no session). As long as it has not run the client's threads live on.
  void LockAsync(const CallOptions& call, absl::AnyInvocable<void(absl::StatusOr<LockGuard>)> done);
  // One round trip. That somebody else has it is not an error.
  absl::StatusOr<TryLockResult> TryLock(const CallOptions& call = {});
  // The holder, then those who wait, in order.
  absl::StatusOr<std::vector<LockInfo>> Queue(const CallOptions& call = {});
  // Asks the present holder to give the lock up: its guard's release_requested() fires. Whether and
  // when it does is up to the holder. NotFound: nobody holds it.
  absl::Status RequestRelease(const CallOptions& call = {});

 private:
  absl::Status Check() const;

  std::shared_ptr<SessionRep> session_;
  std::string name_;
  MutexOptions options_;
};

// Locks, runs `work`, unlocks. The status of `work` if that failed; else of the lock: Aborted if it
// was lost meanwhile.
absl::Status WithLock(const Session& session, std::string_view name, const MutexOptions& options,
                      absl::FunctionRef<absl::Status(const LockGuard&)> work,
                      const CallOptions& call = {});

}  // namespace conclave
