// Contender: one key in the queue under a prefix. Locks and elections are both this.
//
// Everybody who contends for a name puts one key "<name>/<lease in hex>" on his lease; the key with
// the lowest create revision owns the name. Go's concurrency package and the servers' lock and
// election services use the same keys, so all of these exclude each other.
//
//   queued (locally) -> joining -> waiting -> owning -> leaving -> gone
//
// - joining: one transaction puts the key if it is absent and reads the owner: one round trip when
// nobody
//   else is there. It may be repeated safely, for it is conditional on our own key.
// - waiting: on ONE key, the last one before ours, so that a release wakes one waiter; and on our
// own key
//   and the session, so that whoever has lost his place hears it at once instead of believing in
//   it. When the predecessor is gone, one linearizable read checks that our key is still the one we
//   put and that nobody is before us.
// - owning: our own key and the session are watched on; `lost` is called once when either goes.
// - leaving: the key is deleted if it is still ours.
// The create revision of our key is the fencing token: it grows with every new owner.
//
// Thread: the engine's. Callbacks never run from within.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/types.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {

class Contender : public std::enable_shared_from_this<Contender> {
 public:
  struct Request {
    std::string name{};  // without the slash behind it
    std::string value{};
    bool only_try = false;  // do not wait: own it at once or leave no key
  };

  struct Outcome {
    bool owns = false;
    std::optional<KeyValue> owner{};  // of a try that failed: who owns it, if known
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  using Lost = absl::AnyInvocable<void(absl::Status)>;
  using Left = absl::AnyInvocable<void(absl::Status)>;

  Contender(std::shared_ptr<SessionCore> session, Request request);

  // `done` once: owning; or not and why: Aborted (session or key lost), or what Cancel said. `lost`
  // at most once, after done said "owns".
  void Start(Done done, Lost lost);
  // Before `done`: stop contending, remove the key, then done(why). Afterwards: nothing.
  void Cancel(const absl::Status& why);
  // While owning: give it up. OK; Aborted if it was not ours any more; or why the key may still be
  // there (removal goes on behind the scenes as long as the session lives).
  void Release(Instant deadline, Left left);
  // While owning: replace the value of the key. Aborted if it is not ours any more.
  void Update(std::string value, Instant deadline, Left updated);

  const std::string& key() const { return key_; }
  const std::string& value() const { return request_.value; }
  int64_t token() const { return token_; }  // once owning
  bool owning() const { return state_ == State::kOwning; }

  // From the session: first in the local queue now.
  void OnTurn();

 private:
  enum class State { kNew, kQueued, kJoining, kWaiting, kOwning, kLeaving, kGone };

  TxnRequest JoinTxn() const;
  void Join();
  void OnJoined(absl::StatusOr<TxnResult> result);
  void OnTried(const TxnResult& result);
  void Look();
  void OnLooked(absl::StatusOr<TxnResult> result);
  void WatchOwnKey(int64_t after_revision);
  void OnOwnKey(const WatchBatch& batch);
  void OnPredecessor(const WatchBatch& batch);
  void TryAgain(const absl::Status& why, void (Contender::*step)());
  void Own();
  void OnGone(const absl::Status& why);
  void Leave();
  void OnLeft(absl::StatusOr<TxnResult> result);
  void SweepLater();
  void Finish(absl::StatusOr<Outcome> outcome);
  void End();

  Engine& engine_;
  std::shared_ptr<SessionCore> session_;
  Request request_;
  const std::string prefix_;
  const std::string key_;
  State state_ = State::kNew;
  int64_t token_ = 0;
  int failures_ = 0;
  bool join_unknown_ = false;   // a join may take effect after all
  bool leave_unknown_ = false;  // a removal may have taken effect
  absl::Status why_;            // kLeaving before done: what done will say
  CallId call_ = 0;
  TimerId timer_{};
  TimerId patience_{};
  WatchHandle own_watch_ = 0;
  WatchHandle predecessor_watch_ = 0;
  uint64_t on_session_lost_ = 0;
  Instant leave_deadline_ = kNever;
  Done done_;
  Lost lost_;
  Left left_;
};

}  // namespace conclave
