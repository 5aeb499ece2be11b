// Contender: a place in the queue of a name. Locks of all kinds and elections are this.
//
// Everybody who contends puts a key on his lease; a TurnRule says whose turn it is by the keys that
// are older. The plain rule (OneAtATime) has the key "<name>/<lease in hex>", and the oldest owns
// the name: Go's concurrency package and the servers' lock and election services do the same, so
// all of these exclude each other. Some kinds put several keys, all in one transaction.
//
//   queued (locally) -> joining -> waiting -> securing -> owning -> leaving -> gone
//
// - queued: where two of one session would put the same key, one at a time is in the cluster.
// - joining: one transaction puts the keys if they are absent and reads what the rule asks for: one
//   round trip when nobody is in the way. It may be repeated safely, for it is conditional on our
//   own keys.
// - waiting: on ONE range that the rule names, so that a release wakes only whom it concerns; and
//   on our own keys and the session, so that whoever has lost his place hears it at once instead of
//   believing in it. When the rule's event comes, one linearizable read checks that our keys are
//   still those we put and that it is our turn.
// - securing: with a lock-delay, the hold key is put before anybody may believe that he owns.
// - owning: our own keys and the session are watched on; `lost` is called once when either goes.
// - leaving: the keys are deleted if they are still ours.
// The create revision of our keys is the fencing token: it grows with every new owner.
//
// Thread: the engine's. Callbacks never run from within.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/lock_delay.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/client/core/types.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {

class Contender : public std::enable_shared_from_this<Contender> {
 public:
  struct Request {
    std::string name{};  // without the slash behind it
    std::string value{};
    bool only_try = false;  // do not wait: own it at once or leave no key
    // For other kinds than "one at a time under `name`": the rule, and our keys (different ones).
    std::shared_ptr<TurnRule> rule{};
    std::vector<std::string> keys{};
    // The local queues to go through first, all of them; needed where `keys` are not unique to this
    // contender.
    std::vector<std::string> local_queues{};
    // If set: a key that is put along with ours, on the same lease; also if ours was there before.
    std::string beside_key{};
    std::string beside_value{};
    // Deleted along with our keys when we give them up.
    std::vector<std::string> companions{};
    std::optional<LockDelay::Request> delay{};
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
  // While owning: stop looking after the keys, which stay. For who hands them over to somebody
  // else.
  void Detach();
  // While owning: replace the value of the first key; repeated until the deadline while the outcome
  // is not known. Aborted if it is not ours any more.
  void Update(std::string value, Instant deadline, Left updated);

  const std::string& key() const { return request_.keys.front(); }
  const std::vector<std::string>& keys() const { return request_.keys; }
  const std::string& value() const { return request_.value; }
  int64_t token() const { return token_; }  // once owning
  bool owning() const { return state_ == State::kOwning; }

  // From the session: first in the local queue now.
  void OnTurn();

 private:
  enum class State {
    kNew,
    kQueued,
    kJoining,
    kWaiting,
    kSecuring,
    kOwning,
    kLeaving,
    kGone,
  };

  bool contending() const;
  bool FirstLocally() const;
  TxnRequest JoinTxn() const;
  void Join();
  void OnJoined(absl::StatusOr<TxnResult> result);
  void OnJoinMissed(const TxnResult& result);
  void AdoptOwnKeys(const TxnResult& result);
  void Look();
  void OnLooked(absl::StatusOr<TxnResult> result);
  std::vector<const RangeResult*> Answers(const TxnResult& result, size_t from) const;
  void Act(Turn turn, int64_t revision);
  void WatchOwnKeys(int64_t after_revision);
  void OnOwnKey(size_t i, const WatchBatch& batch);
  void OnWatched(const WatchBatch& batch);
  void TryAgain(const absl::Status& why, void (Contender::*step)());
  void Own(bool announce);
  void Refuse(std::optional<KeyValue> owner);
  void OnGone(const absl::Status& why);
  void Leave();
  void OnLeft(absl::StatusOr<TxnResult> result);
  void SweepLater();
  void Sweep();
  void Finish(absl::StatusOr<Outcome> outcome);
  void FinishCancelled();
  void End();
  void StopWatching();

  Engine& engine_;
  std::shared_ptr<SessionCore> session_;
  Request request_;
  State state_ = State::kNew;
  int64_t token_ = 0;
  int joins_ = 0;
  int failures_ = 0;
  Instant stray_until_{};        // until then a join of unknown outcome may take effect
  bool leave_unknown_ = false;   // a removal may have taken effect
  bool left_some_lost_ = false;  // a removal found a key that was not ours any more
  bool refused_ = false;         // kLeaving before done: a try that found its place taken
  absl::Status why_;             // kLeaving before done: what done will say, unless refused_
  CallId call_ = 0;
  TimerId timer_{};
  TimerId patience_{};
  Turn turn_;  // kWaiting: what we wait for
  std::vector<WatchHandle> own_watches_;
  WatchHandle turn_watch_ = 0;
  uint64_t on_session_lost_ = 0;
  Instant leave_deadline_ = kNever;
  // What is to be deleted, one group in one transaction. All of it; if a part turns out to be lost,
  // each for itself.
  std::deque<std::vector<std::string>> removals_;
  std::optional<LockDelay> delay_;
  Done done_;
  Lost lost_;
  Left left_;
};

}  // namespace conclave
