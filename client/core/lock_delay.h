// LockDelay: keeps a lock from others for some time after its holder has vanished.
//
// The holder has, besides its place in the queue, the key "<name>~hold" on a lease of its own that
// outlives the session's. A clean release deletes it. If the holder dies, its place in the queue
// goes with its session, but contenders of ours wait until the hold has gone too; so what the
// holder had under way, like a write on its way to a disk, has time to arrive or to fail.
// Contenders of other kinds of clients know nothing of it.
//
// The lease is granted for one and a half times the session's TTL and the delay, and renewed at a
// third: whenever the holder stops, at least the TTL and the delay remain.
//
// Thread: the engine's. It must not go while `placed` is outstanding; its owner holds itself by it.
#pragma once

#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave {

class LockDelay {
 public:
  struct Request {
    std::string hold_key{};
    std::string holder{};  // the value: whoever has the same need not wait
    Duration duration{};   // TTL of the session and the delay
  };
  using Placed = absl::AnyInvocable<void(absl::Status)>;

  LockDelay(Engine& engine, Request request) : engine_(engine), request_(std::move(request)) {}

  // Puts the hold if `condition` is true: Aborted if not. May be asked again after a failure.
  void Place(const Compare& condition, Placed placed);
  // After the hold was deleted.
  void Withdraw();
  // The hold stays until its lease has run out.
  void Abandon();

  // False: the hold was never put by us.
  bool attempted() const { return attempted_; }
  const std::string& hold_key() const { return request_.hold_key; }

 private:
  void Put(const Compare& condition, Placed placed);

  Engine& engine_;
  const Request request_;
  LeaseId lease_ = 0;
  bool attempted_ = false;
  bool ended_ = false;
};

}  // namespace conclave
