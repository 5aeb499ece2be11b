// SharedLease: the one lease that many keys of a process stand on, and what must be done once for
// all of them: opening it, noticing its end, opening the next one, and doling out their writes so
// that a cluster that has just recovered is not trampled.
//
// It is there as long as somebody uses it: the first tenant opens it, the last one out revokes it.
// A lost lease is followed by a new one, after a pause with full jitter that grows up to
// kRetryCap, for ever. The tenants hear of the new one spread over kSpreadPerTenant each (at most
// kSpreadMax), and at most kWritesMax of their writes are under way at a time.
//
// Or it is somebody else's session: then it is neither opened again nor revoked, and its end is
// final (kEnded).
//
// Thread: the engine's. Tenants are never called from within.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/session_core.h"

namespace conclave {

enum class LeaseEvent {
  kGranted,      // there is a lease: lease() tells which
  kGrantFailed,  // there is none yet; it is tried again
  kSuspect,      // renewals go unanswered
  kAlive,        // they are answered again
  kLost,         // it is gone, or cannot be shown to live; the next one is on its way
  kEnded,        // the same for a session that is not ours: there is no next one
};

class SharedLease : public std::enable_shared_from_this<SharedLease> {
 public:
  static constexpr int kWritesMax = 16;
  static constexpr Duration kSpreadPerTenant = std::chrono::milliseconds(1);
  static constexpr Duration kSpreadMax = std::chrono::seconds(5);

  class Tenant {
   public:
    virtual ~Tenant() = default;
    virtual void OnLease(LeaseEvent event, const absl::Status& why) = 0;
    // Where it stands on this lease.
    virtual const std::string& key() const = 0;
  };

  // `complain` hears of each loss, once for all tenants; may be null.
  SharedLease(Engine& engine, int64_t ttl_seconds,
              std::function<void(const std::string&)> complain = nullptr);
  // On a session of the caller's.
  SharedLease(Engine& engine, std::shared_ptr<SessionCore> session);

  LeaseId lease() const { return session_ == nullptr ? 0 : session_->lease(); }
  size_t tenants() const { return tenants_.size(); }

  // Gives the number that the tenant goes by here. The lease does not keep it alive.
  uint64_t Join(const std::shared_ptr<Tenant>& tenant);
  // Nothing is said to the tenant any more, and its writes that wait are dropped. If it was the
  // last one the lease is revoked, which takes all its keys along; `done` tells how that went.
  void Leave(uint64_t tenant, Instant deadline, absl::AnyInvocable<void(absl::Status)> done);
  // True: Leave would revoke the lease.
  bool LeavingRevokes(uint64_t tenant) const;

  // Runs `start`, at once or when it is this tenant's turn; WriteDone must follow each run.
  void Write(uint64_t tenant, Engine::Work start);
  void WriteDone();

  // A write said that there is no such lease.
  void OnNotFound(LeaseId lease);

  // Deletes `key` from this lease in the background until that has worked, as long as no tenant
  // owns it. For what was not deleted in time, and for writes that may yet arrive.
  void Sweep(const std::string& key, Duration delay);

 private:
  std::shared_ptr<Tenant> Find(uint64_t tenant) const;  // null: it has left
  void Open();
  void OpenLater();
  void OnOpened(uint64_t generation, absl::StatusOr<std::shared_ptr<SessionCore>> session);
  void OnHealth(uint64_t generation, SessionHealth health);
  void Lose(const absl::Status& why);
  void Tell(LeaseEvent event, const absl::Status& why);
  void TellGranted(uint64_t number, Duration delay);
  void SweepNow(const std::string& key, int failures);

  Engine& engine_;
  const int64_t ttl_seconds_;
  const bool borrowed_;
  const std::function<void(const std::string&)> complain_;
  std::shared_ptr<SessionCore> session_;
  uint64_t generation_ = 0;                            // of the session
  std::map<uint64_t, std::weak_ptr<Tenant>> tenants_;  // in the order in which they came
  uint64_t next_tenant_ = 1;
  int writes_ = 0;
  std::deque<std::pair<uint64_t, Engine::Work>> waiting_;
  bool had_one_ = false;  // a lease, before this one
  int failures_ = 0;
  Instant granted_at_{};
  CallId opening_ = 0;
  TimerId open_again_{};
};

}  // namespace conclave
