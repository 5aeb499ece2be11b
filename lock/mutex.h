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
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"

namespace conclave {

class Claim;

// Who stands in the queue of a lock.
struct LockInfo {
  std::string key{};
  LeaseId lease = 0;
  int64_t token = 0;     // create revision of the key; 0 if not known
  std::string holder{};  // "host:pid", or empty for other kinds of clients
  std::string since{};   // when it began to ask, RFC 3339 in UTC, by its own clock
  std::string info{};
};

// The lock while it is held. Giving up: Unlock, or the destructor, which does not wait.
class [[nodiscard]] LockGuard {
 public:
  LockGuard(LockGuard&&) noexcept;
  LockGuard& operator=(LockGuard&&) noexcept;
  ~LockGuard();

  // The fencing token: grows with every holder of the lock.
  int64_t token() const;
  const std::string& key() const;
  // A condition for a transaction: it runs only while the lock is ours.
  Compare StillHeld() const;
  // False as soon as the lock is known to be lost, or can no longer be shown to be ours: the local
  // deadline of the session has passed. From the clock; no call.
  bool held() const;
  // Fires at the same moment, and at Unlock.
  std::stop_token stop_token() const;

  // OK: it was ours until now. Aborted: it was lost before (IsLost). Other errors: the key may
  // still be there; its removal goes on behind the scenes.
  absl::Status Unlock(const CallOptions& call = {});

 private:
  friend class Mutex;
  explicit LockGuard(std::shared_ptr<Claim> claim);
  std::shared_ptr<Claim> claim_;
};

struct MutexOptions {
  std::string info{};  // shown to others who ask for the queue
};

struct TryLockResult {
  std::optional<LockGuard> guard{};  // absent: somebody else has it
  std::optional<LockInfo> holder{};  // then this is who
};

class Mutex {
 public:
  // The session must outlive the locking, not this object.
  Mutex(const Session& session, std::string_view name, const MutexOptions& options = {});

  // Waits for its turn; without a timeout as long as the session lives. DeadlineExceeded and
  // Cancelled as asked, with no key left behind. Aborted at once when the session is lost or our
  // place in the queue.
  absl::StatusOr<LockGuard> Lock(const CallOptions& call = {});
  // One round trip. That somebody else has it is not an error.
  absl::StatusOr<TryLockResult> TryLock(const CallOptions& call = {});
  // The holder, then those who wait, in order.
  absl::StatusOr<std::vector<LockInfo>> Queue(const CallOptions& call = {});

 private:
  std::shared_ptr<SessionRep> session_;
  std::string name_;
  std::string info_;
};

// True for the status of a lock or a leadership that was lost: Aborted.
bool IsLost(const absl::Status& status);

}  // namespace conclave
