// Queue: items that are pushed by some and taken by others, each by one.
//
//   conclave::Queue queue(session, "queues/mail");
//   absl::Status pushed = queue.Push("letter", {.priority = 1}).status();
//
//   absl::StatusOr<conclave::QueueItem> item = queue.Pop();       // at most once
//
//   absl::StatusOr<conclave::TakenItem> work = queue.Take();      // at least once
//   if (work.ok() && Deliver(work->value())) (void)work->Ack();
//
// The higher priority first; within one, first come, first served: who pushes after another's Push
// has returned stands behind it. A popped item is gone. A taken one is hidden until it is
// acknowledged; it comes back when it is given back or its taker's lease ends, at its old place.
//
// Those who wait for an item stand in a queue of their own, in the order of their coming: an item
// that arrives wakes one of them. (queue_plan.h has the keys.)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/coordination/queue_plan.h"

namespace conclave {

class Patience;

struct QueueOptions {
  // Push says ResourceExhausted when about that many items are there (pushes at the same moment may
  // exceed it by their number).
  int64_t length_max = 100'000;
  // While that many items are taken, nothing more is given out.
  int64_t in_flight_max = 1000;
};

struct PushOptions {
  int priority = 0;  // 0 to QueuePlan::kPriorityMax
};

struct QueueItem {
  std::string id{};
  std::string value{};
  int priority = 0;
};

// An item to work on. Without an Ack it goes back: by Nack, by the destructor, which does not wait,
// or with the session.
class [[nodiscard]] TakenItem {
 public:
  TakenItem(TakenItem&&) noexcept;
  TakenItem& operator=(TakenItem&&) noexcept;
  ~TakenItem();

  const std::string& id() const;
  const std::string& value() const;
  int priority() const;
  // A condition for a transaction: it runs only while the item is ours.
  Compare StillOurs() const;
  // False once it is settled, or the session's local deadline has passed: somebody else may have
  // it. From the clock; no call.
  bool ours() const;
  std::stop_token stop_token() const;  // the session's

  // Done: it is gone for good. Aborted: it was not ours any more, and comes to another one.
  absl::Status Ack(const CallOptions& call = {});
  // The same, with more ops in the same transaction: what the work changes in this store counts
  // exactly once.
  absl::Status AckWith(std::vector<Op> ops, const CallOptions& call = {});
  // Not done: it is free again, at its old place. Aborted: it was not ours any more.
  absl::Status Nack(const CallOptions& call = {});

 private:
  friend class Queue;
  struct Rep;
  explicit TakenItem(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// Thread: any. The session must outlive the calls; it holds what is taken.
class Queue {
 public:
  static constexpr size_t kValueMax = 1024 * 1024;

  // What cannot be a name makes every call InvalidArgument.
  Queue(const Session& session, std::string_view name, const QueueOptions& options = {});

  // The item's id. A lost answer is not repeated: the item may be there (IsOutcomeUnknown).
  absl::StatusOr<std::string> Push(std::string_view value, const PushOptions& options = {},
                                   const CallOptions& call = {});
  // Waits for an item; without a timeout for ever. Of those who get a lost answer instead of an
  // item, the item may be gone all the same: at most once (IsOutcomeUnknown).
  absl::StatusOr<QueueItem> Pop(const CallOptions& call = {});
  absl::StatusOr<TakenItem> Take(const CallOptions& call = {});
  // The same without waiting: nullopt if nothing is free.
  absl::StatusOr<std::optional<QueueItem>> TryPop(const CallOptions& call = {});
  absl::StatusOr<std::optional<TakenItem>> TryTake(const CallOptions& call = {});
  // Items, taken ones included.
  absl::StatusOr<int64_t> Size(const CallOptions& call = {}) const;

 private:
  // What is to be done with a free item: OK and true if it is ours; false: another was faster.
  using Seize = absl::AnyInvocable<absl::StatusOr<bool>(Patience&, const KeyValue& item)>;

  absl::Status Valid() const;
  absl::StatusOr<QueuePlan::Next> Look(Patience& patience) const;
  // True: an item was seized. False: nothing is free, as of *revision.
  absl::StatusOr<bool> TryOnce(Patience& patience, Seize& seize, int64_t* revision);
  absl::Status WaitAndSeize(const CallOptions& call, Seize seize);
  Seize PopInto(std::optional<QueueItem>* popped) const;
  Seize TakeInto(std::optional<TakenItem>* taken) const;
  QueueItem ItemOf(const KeyValue& kv) const;

  const std::shared_ptr<SessionRep> session_;
  const LeaseId lease_;
  const std::stop_token stop_;
  const std::string name_;
  const QueueOptions options_;
  const QueuePlan plan_;
};

}  // namespace conclave
