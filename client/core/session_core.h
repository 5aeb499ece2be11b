// SessionCore: one lease that is kept alive, and what hangs on it. The engine's half of a Session.
//
// Thread: the engine's. Limits: one contender per name is in the cluster at a time, the others of
// the same session queue here (two threads of one process would else own the same key).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave {

class Contender;

class SessionCore : public std::enable_shared_from_this<SessionCore> {
 public:
  using Observer = absl::AnyInvocable<void(SessionHealth health, Instant deadline)>;
  using Opened = absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<SessionCore>>)>;

  struct Request {
    int64_t ttl_seconds = 10;
    LeaseId lease = 0;                 // 0: grant one; else take this one over, which must live
    std::optional<Duration> margin{};  // default max(10 % of the granted TTL, 500 ms)
    // Once the session is lost by the local deadline: free what it holds on the server at once,
    // which locks want; or leave that to the lease's own end, so that its keys can still move to
    // another.
    bool revoke_on_loss = true;
  };
  // Grants a lease and keeps it alive. The observer hears of every renewal and change of health.
  static CallId Open(Engine& engine, const Request& request, Instant deadline, Observer observer,
                     Opened opened);

  // On a lease that somebody else keeps alive and ends: it is not renewed from here, and that it is
  // gone shows by its keys.
  static std::shared_ptr<SessionCore> Borrow(Engine& engine, LeaseId lease);

  Engine& engine() { return engine_; }
  LeaseId lease() const { return lease_; }
  Duration ttl() const { return ttl_; }
  Instant deadline() const { return deadline_; }
  bool lost() const { return lost_; }

  // Called once, when the session is lost or closed; at once (deferred) if it is already. 0 is no
  // id.
  uint64_t OnLost(Engine::Work work);
  void RemoveOnLost(uint64_t& id);

  // Stops renewing, tells everybody on it, and revokes the lease. OK also if it was gone already.
  // What fails is tried again until the deadline.
  void Close(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);

  // The queue of contenders for one prefix. Whoever gets first hears of it by OnTurn, unless he was
  // at once.
  void Enqueue(const std::string& prefix, const std::shared_ptr<Contender>& contender);
  void Dequeue(const std::string& prefix, Contender* contender);
  Contender* First(const std::string& prefix);
  // A number that is new in this session, for keys that must differ.
  uint64_t NextNumber() { return next_number_++; }

 private:
  static CallId TakeOver(Engine& engine, const Request& request, Instant deadline,
                         Observer observer, Opened opened);
  static std::shared_ptr<SessionCore> Make(Engine& engine, LeaseId lease, Duration ttl,
                                           const Request& request, Instant sent_at,
                                           Observer observer);
  SessionCore(Engine& engine, LeaseId lease, Duration ttl, Observer observer)
      : engine_(engine), lease_(lease), ttl_(ttl), observer_(std::move(observer)) {}
  void Begin(Duration margin, Instant sent_at);
  void Lose();
  void Revoke(Instant deadline, int failures, absl::AnyInvocable<void(absl::Status)> done);

  Engine& engine_;
  const LeaseId lease_;
  const Duration ttl_;
  Observer observer_;
  Instant deadline_{};
  bool lost_ = false;
  bool revoke_on_loss_ = true;
  uint64_t next_listener_ = 1;
  uint64_t next_number_ = 1;
  std::map<uint64_t, Engine::Work> listeners_;
  std::map<std::string, std::deque<std::shared_ptr<Contender>>> queues_;
};

}  // namespace conclave
