// Registrar: keeps one instance in the registry, whatever happens to its key or its lease. Pure.
//
// The desired state is "the key holds this value on a live lease of ours", or, for an instance that
// is not to be seen, "there is no such key of ours"; the registrar compares and repairs until it is
// told to stop:
//   no lease, or lost      -> the SharedLease gets the next one, and never gives up
//   key absent or old      -> put it, if it is still as we saw it (compare its revision)
//   key of another id      -> it is taken: say AlreadyExists, look again later
//   key deleted by hand    -> put it again
//   key overwritten        -> put it again, with growing pauses, so that two owners do not fight
//   hotly
// It writes the latest instance, not the one it began with. What is written is the instance as its
// owner wants it, less what draining, health and an operator's override take away (Effective):
// nothing is written before the overrides are known.
//
// Thread: the engine's. Callbacks never run from within.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/registry/codec.h"
#include "conclave/registry/instance.h"
#include "conclave/registry/override_book.h"
#include "conclave/registry/registration_state.h"
#include "conclave/registry/shared_lease.h"

namespace conclave {

// What is to stand in the store.
struct Effective {
  bool visible = true;
  Instance instance{};
  absl::Status why{};  // why it is not as its owner wants it
};

class Registrar : public SharedLease::Tenant, public std::enable_shared_from_this<Registrar> {
 public:
  struct Event {
    RegState state = RegState::kStarting;
    absl::Status why{};   // OK, or what is wrong, or (kRegistered, kDraining) what holds it back
    int64_t repairs = 0;  // keys that others took or changed and we put back
    int64_t reregistrations = 0;  // on another lease than before
  };
  using Observer = absl::AnyInvocable<void(const Event&)>;

  // The instance is valid and has an address. `overrides` may be null: then none is heeded.
  Registrar(Engine& engine, std::shared_ptr<SharedLease> lease,
            std::shared_ptr<OverrideBook> overrides, const Codec& codec, Instance instance,
            Observer observer);

  void Start();
  // Replaces the instance; service, id and address stay.
  void Update(Instance instance);
  void SetDraining(bool draining);
  // Not OK: it is down.
  void SetHealth(const absl::Status& health);
  // Deletes the key, if it is ours; the lease goes on until Stop. The registrar does not repair any
  // more.
  void Withdraw(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);
  // Withdraws, and leaves the lease.
  void Stop(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);

  RegState state() const { return event_.state; }
  Effective effective() const;

  void OnLease(LeaseEvent event, const absl::Status& why) override;
  const std::string& key() const override { return key_; }

 private:
  void OnGranted();
  void OnOverride(const std::optional<Override>& value);
  void Change();
  void Reconcile();
  void WriteNow();
  TxnRequest WriteRequest() const;
  void OnWritten(LeaseId lease, absl::StatusOr<TxnResult> result);
  void OnOccupied(const KeyValue* kv);
  void OnOwnKey(const WatchBatch& batch);
  void OnKeyIs(const KeyValue* kv);
  void WatchOwnKey(int64_t after_revision);
  void StopWatching();
  void Retry(const absl::Status& why);
  void Settle();
  void SetState(RegState state, const absl::Status& why);
  void End();
  void Remove(Instant deadline, absl::AnyInvocable<void(absl::Status)> done);
  bool Active() const { return !withdrawn_ && event_.state != RegState::kGone; }
  bool Settled() const {
    return event_.state == RegState::kRegistered || event_.state == RegState::kDraining;
  }

  Engine& engine_;
  const std::shared_ptr<SharedLease> lease_;
  const std::shared_ptr<OverrideBook> overrides_;
  const Codec& codec_;
  Instance instance_;
  Observer observer_;

  // What takes away from the instance.
  bool draining_ = false;
  absl::Status health_;
  std::optional<Override> override_;
  bool override_known_;
  uint64_t subscription_ = 0;
  uint64_t tenant_ = 0;

  Event event_;
  bool withdrawn_ = false;
  bool removed_ = false;  // and the key is known to be gone
  bool was_registered_ = false;
  LeaseId granted_ = 0;     // as the lease was last announced
  LeaseId written_on_ = 0;  // the lease of the last successful write
  std::string key_;
  std::string old_key_;                  // of a lease before, if keys move with the lease
  std::optional<std::string> wanted_;    // the value; absent: the key is to be absent
  std::optional<std::string> attempt_;   // what the write under way says
  bool writing_ = false;                 // under way, or in the lease's queue
  bool again_ = false;                   // the instance changed while a write was under way
  bool waiting_ = false;                 // a retry is due
  bool may_arrive_ = false;              // a write may have been sent that was never answered
  int64_t seen_revision_ = 0;            // mod_revision of the key as last seen; 0: absent
  bool as_written_ = false;              // and it is what the last write made
  std::optional<std::string> stored_{};  // then this is it
  int failures_ = 0;
  Instant registered_at_{};
  CallId call_ = 0;
  TimerId retry_{};
  WatchHandle watch_ = 0;
};

}  // namespace conclave
