#include "conclave/lock/wait_queue.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/turn_rule.h"
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

// What a thread waits for: the first that says why it may go on, or must not.
struct Wait {
  std::mutex mutex;
  std::condition_variable bell;
  std::optional<absl::Status> result;  // guarded by mutex

  void End(absl::Status status) {
    std::lock_guard lock(mutex);
    if (!result.has_value()) result = std::move(status);
    bell.notify_all();
  }
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
  auto wait = std::make_shared<Wait>();
  std::stop_callback on_stop(call.stop,
                             [wait] { wait->End(absl::CancelledError("stop was requested")); });
  std::stop_callback on_lost(
      stop_token(), [wait] { wait->End(absl::AbortedError("our place in the queue is lost")); });
  const Watch watch =
      Client(claim_->session()->impl())
          .Watch(key, {.list_first = true, .no_puts = true}, [wait](const WatchBatch& batch) {
            if (!batch.status.ok()) return wait->End(batch.status);
            if (!batch.events.empty() || (batch.resynced && batch.state.empty())) {
              wait->End(absl::OkStatus());
            }
          });
  const absl::Time deadline =
      std::min(call.deadline, absl::Now() + call.timeout.value_or(absl::InfiniteDuration()));
  std::unique_lock lock(wait->mutex);
  const auto ended = [&wait] { return wait->result.has_value(); };
  if (deadline == absl::InfiniteFuture()) {
    wait->bell.wait(lock, ended);
  } else if (!wait->bell.wait_until(lock, absl::ToChronoTime(deadline), ended)) {
    return absl::DeadlineExceededError("the key is still there");
  }
  return *wait->result;
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
