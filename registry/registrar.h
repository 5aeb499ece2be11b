// Registrar: keeps one instance in the registry, whatever happens to its key or its lease. Pure.
//
// The desired state is "the key holds this value on a live lease of ours"; the registrar compares
// and repairs until it is told to stop:
//   no lease, or lost      -> grant one              (full jitter, growing pauses, never giving up)
//   key absent or old      -> put it, if it is still as we saw it (compare its revision)
//   key of another id      -> it is taken: say AlreadyExists, look again later
//   key deleted by hand    -> put it again
//   key overwritten        -> put it again, with growing pauses, so that two owners do not fight
//   hotly
// It writes the latest instance, not the one it began with.
//
// Thread: the engine's. Callbacks never run from within.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/registry/instance.h"

namespace conclave {

enum class RegState {
  kStarting,       // not registered yet
  kRegistered,     // the key is there
  kSuspect,        // renewals go unanswered; the key is still there, as far as we know
  kLost,           // the lease is gone or cannot be shown to live
  kReregistering,  // on the way back
  kGone,           // deregistered for good
};

std::string_view RegStateName(RegState state);

class Registrar : public std::enable_shared_from_this<Registrar> {
 public:
  using Observer = absl::AnyInvocable<void(RegState state, const absl::Status& why)>;

  // The instance is valid and has an address.
  Registrar(Engine& engine, Instance instance, int64_t ttl_seconds, Observer observer);

  void Start();
  // Replaces the instance; service and address stay.
  void Update(Instance instance);
  // Deletes the key, if it is ours; the lease goes on until Stop. The registrar does not repair any
  // more.
  void Withdraw(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);
  // Revokes the lease, which takes the key along if it is still there.
  void Stop(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);

  RegState state() const { return state_; }

 private:
  void OpenSession();
  void OnHealth(SessionHealth health);
  void Reconcile();
  void OnWritten(absl::StatusOr<TxnResult> result);
  void OnOccupied(const KeyValue* kv);
  void OnOwnKey(const WatchBatch& batch);
  void OnKeyIs(const KeyValue* kv);
  void WatchOwnKey(int64_t after_revision);
  void Retry(const absl::Status& why);
  void SetState(RegState state, const absl::Status& why);
  bool Active() const { return !withdrawn_ && state_ != RegState::kGone; }

  Engine& engine_;
  Instance instance_;
  const std::string key_;
  const int64_t ttl_seconds_;
  Observer observer_;
  RegState state_ = RegState::kStarting;
  bool withdrawn_ = false;
  bool was_registered_ = false;
  std::shared_ptr<SessionCore> session_;
  std::string wanted_;  // the value
  bool writing_ = false;
  bool again_ = false;         // the instance changed while a write was under way
  int64_t seen_revision_ = 0;  // mod_revision of the key as last seen; 0: absent
  int failures_ = 0;
  Instant registered_at_{};
  CallId call_ = 0;
  TimerId retry_{};
  WatchHandle watch_ = 0;
};

}  // namespace conclave
