// WaitQueue: the queue under the locks, for those who build a kind of lock of their own.
//
//   conclave::WaitQueue queue(session, "locks/pairs");
//   absl::StatusOr<conclave::QueuePlace> place = queue.Join("wants a pair");
//   for (;;) {
//     absl::StatusOr<std::vector<conclave::KeyValue>> before = place->Earlier();
//     if (!before.ok()) return before.status();  // Aborted: the place is lost
//     if (before->size() < 2) break;             // our turn, by our own rule
//     absl::Status waited = place->WaitUntilGone((*before)[before->size() - 2].key, call);
//     if (!waited.ok()) return waited;
//   }
//
// A place is a key of its own on the session's lease; its create revision is its number in the
// queue and a fencing token. A rule of your own should depend only on who is earlier, and stay true
// when they leave; and it should wait for one key, so that a leave wakes one waiter.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/lock/guard.h"

namespace conclave {

// A place in the queue, from Join until Unlock or the destructor: as a LockGuard that is held from
// the start. Its stop token fires when the place is lost.
class [[nodiscard]] QueuePlace : public LockGuard {
 public:
  QueuePlace(std::shared_ptr<Claim> claim, std::string_view name)
      : LockGuard(std::move(claim)), name_(name) {}

  // All places that are earlier, the oldest first, as of now; and our own is still there. Aborted:
  // it is not. `under`: only those whose keys continue with this, as given to Join.
  absl::StatusOr<std::vector<KeyValue>> Earlier(std::string_view under = {},
                                                const CallOptions& call = {}) const;
  // Waits until the key is not there; one watch, and no request when it goes. Aborted at once when
  // our own place is lost; DeadlineExceeded, Cancelled as asked (no timeout: for ever), the place
  // stays then.
  absl::Status WaitUntilGone(std::string_view key, const CallOptions& call = {}) const;

 private:
  std::string name_;
};

class WaitQueue {
 public:
  WaitQueue(const Session& session, std::string_view name);

  // Puts a key "<name>/<under><lease>-<number>" with `value`. One round trip. `under` tells kinds
  // of places apart, like "read/" and "write/".
  absl::StatusOr<QueuePlace> Join(std::string_view value, std::string_view under = {},
                                  const CallOptions& call = {});
  // Everybody, the oldest first.
  absl::StatusOr<std::vector<KeyValue>> Places(const CallOptions& call = {}) const;

 private:
  std::shared_ptr<SessionRep> session_;
  std::string name_;
};

}  // namespace conclave
