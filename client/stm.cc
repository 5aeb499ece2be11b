#include "conclave/client/stm.h"

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/client/client.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/fence.h"
#include "conclave/client/core/validate.h"

namespace conclave {
namespace {

constexpr Duration kRetryBase = std::chrono::milliseconds(4);
constexpr Duration kRetryCap = std::chrono::milliseconds(500);
// A member that does not answer a commit is left after this, if there is a way to settle it then.
constexpr Duration kCommitPatience = std::chrono::seconds(2);
constexpr size_t kMissingAtOnce = 100;  // below what a transaction of the server may hold

absl::string_view Text(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

// One call of Atomically: runs the attempts, and does for the core what it wants of the store.
// Thread: the caller's.
class StmRun {
 public:
  StmRun(std::shared_ptr<ClientImpl> impl, fenced::Fence fence, const AtomicallyOptions& options,
         const CallOptions& call)
      : impl_(std::move(impl)),
        fence_(std::move(fence)),
        marker_(options.marker),
        stop_{.stop = call.stop},
        deadline_(impl_->DeadlineOf(call)),
        core_(options.isolation, options.marker) {}

  absl::Status Run(absl::FunctionRef<absl::Status(Stm&)> transaction) {
    for (int conflicts = 0;;) {
      if (absl::Status begun = Begin(); !begun.ok()) return begun;
      Stm tx(*this);
      const absl::Status said = transaction(tx);
      if (status_.ok() && !said.ok()) return said;
      absl::StatusOr<bool> committed = false;
      if (status_.ok()) {
        committed = Commit();
      } else {
        committed = status_;
      }
      if (committed.ok() && *committed) return absl::OkStatus();
      if (!committed.ok()) {
        if (!IsCompacted(committed.status())) return committed.status();
        core_.Forget();  // the snapshot is too old: begin with a new one
      }
      if (absl::Status paused = Pause(conflicts++); !paused.ok()) {
        return GaveUp(paused, conflicts);
      }
    }
  }

  // ---- For Stm.
  const absl::Status& status() const { return status_; }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  std::optional<KeyValue> Get(std::string_view key) {
    if (!status_.ok()) return std::nullopt;
    std::optional<std::optional<KeyValue>> known = core_.Get(key);
    if (known.has_value()) return *std::move(known);
    if (!Read(KeyRange(key))) return std::nullopt;
    return core_.Get(key).value_or(std::nullopt);
  }

  std::vector<KeyValue> Range(const KeyRange& range) {
    if (range.single()) {
      std::optional<KeyValue> kv = Get(range.key);
      return kv.has_value() ? std::vector<KeyValue>{*std::move(kv)} : std::vector<KeyValue>();
    }
    if (!status_.ok()) return {};
    std::optional<std::vector<KeyValue>> known = core_.Range(range);
    if (known.has_value()) return *std::move(known);
    if (!Read(range)) return {};
    return core_.Range(range).value_or(std::vector<KeyValue>());
  }

  void Put(std::string_view key, std::string_view value, LeaseId lease) {
    if (MayWrite(key)) core_.Put(key, value, lease);
  }
  void Delete(std::string_view key) {
    if (MayWrite(key)) core_.Delete(key);
  }

 private:
  absl::Status Begin() {
    status_ = absl::OkStatus();
    if (marker_.empty()) {
      core_.Begin("");
      return absl::OkStatus();
    }
    absl::StatusOr<std::string> id = WaitForCall<std::string>(
        *impl_, stop_,
        [](Engine& engine, absl::AnyInvocable<void(absl::StatusOr<std::string>)> done) -> CallId {
          done(absl::StrCat(absl::Hex(engine.prng().Next(), absl::kZeroPad16),
                            absl::Hex(engine.prng().Next(), absl::kZeroPad16)));
          return 0;
        });
    if (id.ok()) core_.Begin(*id);
    return id.status();
  }

  bool MayWrite(std::string_view key) {
    if (key.empty()) Fail(InvalidRequest("the key of a write is empty"));
    if (!marker_.empty() && key == marker_) {
      Fail(InvalidRequest("the marker belongs to the transaction's commit"));
    }
    return status_.ok();
  }

  // False: it failed, and so has the attempt.
  bool Read(const KeyRange& range) {
    RangeRequest request = core_.ReadOf(range);
    absl::StatusOr<RangeResult> result = Ask(request);
    if (IsFutureRevision(result.status())) {
      request.options.serializable = false;  // that member lags behind: wait until one does not
      result = Ask(request);
    }
    Fail(result.ok() ? core_.OnRead(range, *std::move(result)) : result.status());
    return status_.ok();
  }

  absl::StatusOr<RangeResult> Ask(const RangeRequest& request) {
    return WaitForCall<RangeResult>(
        *impl_, stop_,
        [request, deadline = deadline_](Engine& engine, calls::Done<RangeResult> done) {
          return calls::Range(engine, request, deadline, std::move(done));
        });
  }

  // The call ends after `patience` if then there is time left for another one as long.
  absl::StatusOr<TxnResult> Send(TxnRequest request, const fenced::Fence& fence,
                                 Duration patience = Duration::max()) {
    return WaitForCall<TxnResult>(
        *impl_, stop_,
        [request = std::move(request), fence, patience, deadline = deadline_](
            Engine& engine, calls::Done<TxnResult> done) {
          const Duration left = deadline - engine.now();
          const Instant until = patience < left / 2 ? engine.now() + patience : deadline;
          return fenced::Txn(engine, fence, request, until, std::move(done));
        });
  }

  // False: somebody interfered.
  absl::StatusOr<bool> Commit() {
    if (!core_.NeedsCommit()) return true;
    for (auto keys = core_.Missing(kMissingAtOnce); !keys.empty();
         keys = core_.Missing(kMissingAtOnce)) {
      absl::StatusOr<TxnResult> revisions = Send(core_.MissingTxn(keys), nullptr);
      if (!revisions.ok()) return revisions.status();
      core_.OnMissing(keys, *revisions);
    }
    absl::StatusOr<TxnResult> result =
        Send(core_.CommitTxn(), fence_, core_.can_settle() ? kCommitPatience : Duration::max());
    if (result.ok()) {
      if (!result->succeeded) core_.OnConflict(*result);
      return result->succeeded;
    }
    if (!IsOutcomeUnknown(result.status())) return result.status();
    return core_.can_settle() ? Settle(result.status()) : Unknown(result.status());
  }

  // Whether the commit took effect. The marker is not fenced: it only speaks of this transaction.
  absl::StatusOr<bool> Settle(const absl::Status& why) {
    for (int failures = 0;; ++failures) {
      absl::StatusOr<TxnResult> result = Send(core_.SettleTxn(), nullptr, kCommitPatience);
      if (result.ok()) {
        const StmCore::Settled settled = core_.OnSettled(*result);
        if (settled == StmCore::Settled::kUnknown) return Unknown(why);
        if (settled == StmCore::Settled::kNever) core_.Forget();
        return settled == StmCore::Settled::kCommitted;
      }
      const bool again = IsRetryable(result.status()) || IsOutcomeUnknown(result.status());
      if (!again || !Pause(failures).ok()) return Unknown(why);
    }
  }

  static absl::Status Unknown(const absl::Status& why) {
    absl::Status status(why.code(), absl::StrCat("whether the transaction was committed is not "
                                                 "known, look before you repeat it: ",
                                                 why.message()));
    ErrorDetail detail = GetErrorDetail(why).value_or(ErrorDetail{});
    detail.outcome = Outcome::kUnknown;
    SetErrorDetail(status, detail);
    return status;
  }

  static absl::Status GaveUp(const absl::Status& why, int conflicts) {
    absl::Status status(why.code(), absl::StrCat(why.message(), ", after ", conflicts,
                                                 " attempt(s) that others interfered with"));
    SetErrorDetail(status, {.retryable = true});
    return status;
  }

  // Waits a random time that grows with the failures, on the loop's clock.
  absl::Status Pause(int failures) {
    struct Waiting {
      TimerId timer{};
      absl::AnyInvocable<void(absl::StatusOr<bool>)> done;
    };
    auto waiting = std::make_shared<Waiting>();  // on the loop's thread
    const auto end = [](Waiting& state, absl::StatusOr<bool> result) {
      if (state.done) std::exchange(state.done, nullptr)(std::move(result));
    };
    std::stop_callback on_stop(stop_.stop, [&loop = impl_->loop(), waiting, end] {
      loop.Post([waiting, end](Engine& engine) {
        engine.CancelTimer(waiting->timer);
        end(*waiting, absl::CancelledError("stop was requested"));
      });
    });
    return WaitForCall<bool>(
               *impl_, stop_,
               [waiting, end, failures, stop = stop_.stop, deadline = deadline_](
                   Engine& engine, absl::AnyInvocable<void(absl::StatusOr<bool>)> done) -> CallId {
                 waiting->done = std::move(done);
                 const Duration delay = FullJitter(failures, kRetryBase, kRetryCap, engine.prng());
                 if (stop.stop_requested()) {
                   end(*waiting, absl::CancelledError("stop was requested"));
                 } else if (engine.now() + delay >= deadline) {
                   end(*waiting, absl::DeadlineExceededError("the transaction's time is over"));
                 } else {
                   waiting->timer = engine.After(delay, [waiting, end] { end(*waiting, true); });
                 }
                 return 0;
               })
        .status();
  }

  const std::shared_ptr<ClientImpl> impl_;
  const fenced::Fence fence_;
  const std::string marker_;
  const CallOptions stop_;  // the deadline is kept on the loop's clock
  const Instant deadline_;
  StmCore core_;
  absl::Status status_;  // of this attempt's reads
};

std::optional<std::string> Stm::Get(std::string_view key) {
  std::optional<KeyValue> kv = run_.Get(key);
  if (!kv.has_value()) return std::nullopt;
  return std::move(kv->value);
}

std::optional<KeyValue> Stm::GetKeyValue(std::string_view key) { return run_.Get(key); }

std::optional<int64_t> Stm::GetInt(std::string_view key) {
  std::optional<std::string> text = Get(key);
  if (!text.has_value()) return std::nullopt;
  int64_t number = 0;
  if (absl::SimpleAtoi(*text, &number)) return number;
  run_.Fail(InvalidRequest(absl::StrCat("the value of ", Text(key), " is not a number")));
  return std::nullopt;
}

std::vector<KeyValue> Stm::Range(const KeyRange& range) { return run_.Range(range); }

void Stm::Put(std::string_view key, std::string_view value, LeaseId lease) {
  run_.Put(key, value, lease);
}

void Stm::PutInt(std::string_view key, int64_t value) { run_.Put(key, absl::StrCat(value), 0); }

void Stm::Delete(std::string_view key) { run_.Delete(key); }

const absl::Status& Stm::status() const { return run_.status(); }

absl::Status Client::Atomically(absl::FunctionRef<absl::Status(Stm&)> transaction,
                                const AtomicallyOptions& options, const CallOptions& call) const {
  return StmRun(impl_, fence_, options, call).Run(transaction);
}

}  // namespace conclave
