// Patience: the caller's half of recipes that look, wait for a change, and look again.
//
//   Patience patience(impl, session, call);             // call's timeout counts from here
//   for (;;) {
//     absl::StatusOr<TxnResult> look = patience.Read(request);
//     if (!look.ok()) return look.status();
//     if (... what was waited for ...) return ...;
//     absl::Status changed = patience.WaitForChange({.range = ..., .after_revision =
//     look->revision});
//     if (!changed.ok()) return changed;
//   }
//
// Thread: the caller's, which blocks.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/client/core/change_wait.h"

namespace conclave {

class Patience {
 public:
  // No timeout and no deadline in `call`: for ever. `session` may be null; else its loss is
  // Aborted.
  Patience(std::shared_ptr<ClientImpl> impl, std::shared_ptr<SessionRep> session,
           const CallOptions& call);

  // What is left, for one call of it: at most the client's request_timeout.
  CallOptions ForCall() const;
  // What is left, for a wait of it: without a limit if there was none.
  CallOptions ForWait() const;
  // For recipes that do not wait: no timeout and no deadline mean the client's request_timeout.
  static CallOptions Bounded(const ClientImpl& impl, const CallOptions& call);
  // Reads; what fails for want of a member is tried again until the time is over.
  absl::StatusOr<TxnResult> Read(const TxnRequest& request);
  // Commits a transaction that may be repeated: if its outcome is unknown, too.
  absl::StatusOr<TxnResult> CommitIdempotent(const TxnRequest& request);
  // Whether an attempt of the last CommitIdempotent got no answer: it may take effect even after
  // what was returned (see UndoStray).
  bool left_stray() const { return left_stray_; }
  // OK: look again.
  absl::Status WaitForChange(const ChangeWait::Request& request);
  // A pause before the next try: full jitter, longer with each in a row until Succeeded. Not OK:
  // the time is over.
  absl::Status Pause(Duration base = kPauseBase, Duration cap = kPauseCap);
  void Succeeded() { failures_ = 0; }
  // A pause of that length. On the client's clock, as everything here.
  absl::Status Rest(Duration length);
  // A random number, of the client's generator.
  uint64_t Draw();
  // OK while there is time, no stop was requested, and the session lives.
  absl::Status Check() const;

 private:
  static constexpr Duration kPauseBase = std::chrono::milliseconds(5);
  static constexpr Duration kPauseCap = std::chrono::seconds(1);
  absl::Status Sleep(absl::AnyInvocable<Duration(Engine&)> length);

  const std::shared_ptr<ClientImpl> impl_;
  const std::shared_ptr<SessionRep> session_;
  const Instant deadline_;
  const std::stop_token stop_;
  int failures_ = 0;
  bool left_stray_ = false;
};

}  // namespace conclave
