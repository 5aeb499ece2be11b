// LockGuard: a lock while it is held; what all kinds of locks give. And who holds one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "conclave/client/client.h"

namespace conclave {

class Claim;

// Who stands in the queue of a lock.
struct LockInfo {
  std::string key{};
  LeaseId lease = 0;
  int64_t token = 0;     // create revision of the key; 0 if not known
  std::string holder{};  // "host:pid" or the name it gave itself; empty for other kinds of clients
  std::string since{};   // when it began to ask, RFC 3339 in UTC, by its own clock
  std::string info{};
};

// The lock while it is held. Giving up: Unlock, or the destructor, which does not wait. Thread: any
// may ask; one at a time may move, unlock or destroy it. A guard that was moved from holds nothing,
// and only held() may be asked of it.
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
  // Fires at the same moment, and when the lock is given up.
  std::stop_token stop_token() const;
  // Fires when somebody asks us to give it up soon (Mutex::RequestRelease). Nothing else happens.
  // The first call begins to watch for it. Never fires for the kinds of locks without such
  // requests.
  std::stop_token release_requested() const;

  // OK: it was ours until now. Aborted: it was lost before (IsLost), or given up by force. Other
  // errors: the key may still be there; its removal goes on behind the scenes while the session
  // lives.
  absl::Status Unlock(const CallOptions& call = {});

  // For the kinds of locks. `marker`: the key that asks for release, or empty.
  explicit LockGuard(std::shared_ptr<Claim> claim, const std::string& marker = {});

 protected:
  struct ReleaseRequests;

  std::shared_ptr<Claim> claim_;

 private:
  std::shared_ptr<ReleaseRequests> requests_;  // null: there are none for this kind of lock
};

// True for the status of a lock or a leadership that was lost: Aborted.
bool IsLost(const absl::Status& status);

}  // namespace conclave
