#include "conclave/lock/wait_queue.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/lock/naming.h"

namespace conclave {
namespace {

// Always our turn: the place is what was wanted.
class PlaceRule : public TurnRule {
 public:
  explicit PlaceRule(const std::string& name) : all_(Prefix(name + "/")) {}
  std::vector<Compare> Conditions(bool) const override { return {}; }
  std::vector<Op> Reads(int64_t) const override { return {}; }
  Turn Decide(const std::vector<const RangeResult*>&, int64_t) override { return {}; }
  Missed OnMissed(const std::vector<const RangeResult*>&, bool, absl::Status& why) override {
    why = absl::InternalError("the server did not put an absent key");
    return Missed::kRefused;
  }
  KeyRange Owners() const override { return all_; }

 private:
  const KeyRange all_;
};

std::string Text(std::string_view text) { return std::string(text); }

RangeOptions OldestFirst() {
  return {.sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision};
}

absl::Status CheckUnder(std::string_view under) {
  if (under.empty()) return absl::OkStatus();
  if (under.back() == '/') under.remove_suffix(1);
  return CheckLockName(under);
}

// A wait for a key to go, on the loop's thread. The first word counts.
class Departure : public std::enable_shared_from_this<Departure> {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<bool>)>;

  void Begin(Engine& engine, const std::string& key, Instant deadline, Done done) {
    done_ = std::move(done);
    if (ended_.has_value()) return std::exchange(done_, nullptr)(*ended_);
    watch_ = engine.watches().Add(key, {.list_first = true, .no_puts = true},
                                  [self = shared_from_this(), &engine](const WatchBatch& batch) {
                                    self->OnBatch(engine, batch);
                                  });
    if (deadline == kNever) return;
    timer_ = engine.At(deadline, [self = shared_from_this(), &engine] {
      self->End(engine, absl::DeadlineExceededError("the key is still there"));
    });
  }
  void End(Engine& engine, const absl::Status& why) {
    if (ended_.has_value()) return;
    ended_ = why;
    engine.CancelTimer(timer_);
    engine.watches().Remove(watch_);
    if (done_ == nullptr) return;  // before it began
    Done done = std::exchange(done_, nullptr);
    if (why.ok()) return done(true);
    done(why);
  }

 private:
  void OnBatch(Engine& engine, const WatchBatch& batch) {
    if (!batch.status.ok()) return End(engine, batch.status);
    if (!batch.events.empty() || (batch.resynced && batch.state.empty())) {
      End(engine, absl::OkStatus());
    }
  }

  std::optional<absl::Status> ended_;
  Done done_;
  WatchHandle watch_ = 0;
  TimerId timer_{};
};

}  // namespace

absl::StatusOr<std::vector<KeyValue>> QueuePlace::Earlier(std::string_view under,
                                                          const CallOptions& call) const {
  if (absl::Status good = CheckUnder(under); !good.ok()) return good;
  RangeOptions options = OldestFirst();
  options.max_create_revision = token() - 1;
  absl::StatusOr<TxnResult> result =
      Client(claim_->session()->impl())
          .Txn()
          .If(StillHeld())
          .Then(Range(Prefix(absl::StrCat(name_, "/", Text(under))), options))
          .Commit(call);
  if (!result.ok()) return result.status();
  if (!result->succeeded || !held()) return absl::AbortedError("our place in the queue is lost");
  return result->range(0).kvs;
}

absl::Status QueuePlace::WaitUntilGone(std::string_view key, const CallOptions& call) const {
  ClientImpl& impl = *claim_->session()->impl();
  auto departure = std::make_shared<Departure>();
  const auto end = [&impl, departure](const absl::Status& why) {
    impl.loop().Post([departure, why](Engine& engine) { departure->End(engine, why); });
  };
  std::stop_callback on_stop(call.stop,
                             [&end] { end(absl::CancelledError("stop was requested")); });
  std::stop_callback on_lost(stop_token(),
                             [&end] { end(absl::AbortedError("our place in the queue is lost")); });
  return WaitForCall<bool>(impl, CallOptions{},
                           [departure, wanted = Text(key), deadline = impl.PatientDeadlineOf(call)](
                               Engine& engine, Departure::Done done) -> CallId {
                             departure->Begin(engine, wanted, deadline, std::move(done));
                             return 0;
                           })
      .status();
}

WaitQueue::WaitQueue(const Session& session, std::string_view name)
    : session_(session.rep()), name_(name) {}

absl::StatusOr<QueuePlace> WaitQueue::Join(std::string_view value, std::string_view under,
                                           const CallOptions& call) {
  if (absl::Status good = CheckLockName(name_); !good.ok()) return good;
  if (absl::Status good = CheckUnder(under); !good.ok()) return good;
  if (absl::Status good = CheckLockInfo(value); !good.ok()) return good;
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  const Claim::Request request{
      .kind = "wait_queue",
      .value = Text(value),
      .rule = std::make_shared<PlaceRule>(name_),
      .keys = {absl::StrCat(name_, "/", Text(under), absl::Hex(session_->lease()))},
      .number_keys = true};
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, request, Bounded(session_, call));
  if (!attempt.ok()) return attempt.status();
  return QueuePlace(std::move(attempt->claim), name_);
}

absl::StatusOr<std::vector<KeyValue>> WaitQueue::Places(const CallOptions& call) const {
  if (absl::Status good = CheckLockName(name_); !good.ok()) return good;
  if (session_ == nullptr) return absl::AbortedError("no session: open one");
  absl::StatusOr<RangeResult> range =
      Client(session_->impl()).Range(Prefix(name_ + "/"), OldestFirst(), call);
  if (!range.ok()) return range.status();
  return std::move(range->kvs);
}

}  // namespace conclave
