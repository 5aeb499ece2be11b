#include "conclave/coordination/queue.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/reached.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/undo.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/coordination_metrics.h"
#include "conclave/coordination/names.h"

namespace conclave {

namespace {

void TakeBack(const std::shared_ptr<SessionRep>& session, TxnRequest undo) {
  session->impl()->loop().Post([core = session->core(), undo = std::move(undo)](Engine&) mutable {
    UndoStray(std::move(core), std::move(undo));
  });
}

}  // namespace

// ---- TakenItem
// -------------------------------------------------------------------------------------

struct TakenItem::Rep {
  std::shared_ptr<SessionRep> session;
  std::string queue;
  QueueItem item;
  std::string item_key;
  std::string taken_key;
  int64_t revision = 0;               // of the mark
  std::optional<TxnRequest> stray{};  // what takes back an attempt that may come late
  bool settled = false;

  Client client() const { return Client(session->impl()); }
  void Count(std::string_view event) const {
    CountEvent(session->impl()->metrics(), "queue", queue, event);
  }
  TxnRequest GiveBack() const {
    return {.conditions = {CreateRevision(taken_key) == revision}, .success = {Delete(taken_key)}};
  }
  // Once the item is not ours: nothing may mark it for us again.
  void TakeBackStray() {
    if (stray.has_value()) TakeBack(session, *std::exchange(stray, std::nullopt));
  }
};

TakenItem::TakenItem(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
TakenItem::TakenItem(TakenItem&&) noexcept = default;
TakenItem& TakenItem::operator=(TakenItem&& other) noexcept {
  std::swap(rep_, other.rep_);
  return *this;
}
TakenItem::~TakenItem() {
  if (rep_ == nullptr || rep_->settled) return;
  rep_->Count("given_back");
  // If this fails the lease gives it back.
  rep_->client().TxnAsync(rep_->GiveBack(), {}, [](const absl::StatusOr<TxnResult>&) {});
  rep_->TakeBackStray();
}

const std::string& TakenItem::id() const { return rep_->item.id; }
const std::string& TakenItem::value() const { return rep_->item.value; }
int TakenItem::priority() const { return rep_->item.priority; }
Compare TakenItem::StillOurs() const { return CreateRevision(rep_->taken_key) == rep_->revision; }
bool TakenItem::ours() const { return rep_ != nullptr && !rep_->settled && rep_->session->alive(); }
std::stop_token TakenItem::stop_token() const { return rep_->session->stop_token(); }

absl::Status TakenItem::Ack(const CallOptions& call) { return AckWith({}, call); }

absl::Status TakenItem::AckWith(std::vector<Op> ops, const CallOptions& call) {
  if (rep_->settled) return absl::AbortedError("it was settled before");
  TxnRequest ack{.conditions = {StillOurs()}, .success = std::move(ops)};
  ack.success.push_back(Delete(rep_->item_key));
  ack.success.push_back(Delete(rep_->taken_key));
  absl::StatusOr<TxnResult> acked = rep_->client().Commit(ack, call);
  if (!acked.ok()) return acked.status();
  rep_->settled = true;
  if (!acked->succeeded) return absl::AbortedError("the item was not ours any more");
  rep_->Count("acked");
  return absl::OkStatus();
}

absl::Status TakenItem::Nack(const CallOptions& call) {
  if (rep_->settled) return absl::AbortedError("it was settled before");
  absl::StatusOr<TxnResult> back = rep_->client().Commit(rep_->GiveBack(), call);
  if (!back.ok()) return back.status();
  rep_->settled = true;
  rep_->TakeBackStray();
  if (!back->succeeded) return absl::AbortedError("the item was not ours any more");
  rep_->Count("given_back");
  return absl::OkStatus();
}

// ---- Queue
// -----------------------------------------------------------------------------------------

Queue::Queue(const Session& session, std::string_view name, const QueueOptions& options)
    : session_(session.rep()),
      lease_(session.lease_id()),
      stop_(session.stop_token()),
      name_(name),
      options_(options),
      plan_(name) {}

absl::Status Queue::Valid() const {
  if (absl::Status valid = CheckName("a queue", name_); !valid.ok()) return valid;
  if (options_.length_max < 1 || options_.in_flight_max < 1) {
    return absl::InvalidArgumentError("a queue's limits are at least 1");
  }
  if (session_ == nullptr) return absl::FailedPreconditionError("no session");
  return absl::OkStatus();
}

absl::StatusOr<std::string> Queue::Push(std::string_view value, const PushOptions& options,
                                        const CallOptions& call) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  if (options.priority < 0 || options.priority > QueuePlan::kPriorityMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a priority is 0 to ", QueuePlan::kPriorityMax, ", not ", options.priority));
  }
  if (value.size() > kValueMax) {
    return absl::InvalidArgumentError("an item is larger than 1 MiB");
  }
  // A ticket that is drawn twice does no harm.
  Patience patience(session_->impl(), nullptr, Patience::Bounded(*session_->impl(), call));
  absl::StatusOr<TxnResult> ticket = patience.CommitIdempotent(plan_.Ticket());
  if (!ticket.ok()) return ticket.status();
  if (QueuePlan::LengthAt(*ticket) >= options_.length_max) {
    CountEvent(session_->impl()->metrics(), "queue", name_, "refused");
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue ", name_, " has its ", options_.length_max, " items"));
  }
  const std::string key = plan_.ItemKey(options.priority, ticket->revision);
  absl::StatusOr<PutResult> put = Client(session_->impl()).Put(key, value, {}, patience.ForCall());
  if (!put.ok()) return put.status();
  CountEvent(session_->impl()->metrics(), "queue", name_, "pushed");
  return plan_.IdOf(key);
}

absl::StatusOr<int64_t> Queue::Size(const CallOptions& call) const {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  absl::StatusOr<RangeResult> items =
      Client(session_->impl()).Range(plan_.Items(), {.count_only = true}, call);
  if (!items.ok()) return items.status();
  return items->count;
}

// ---- Getting items
// ---------------------------------------------------------------------------------

QueueItem Queue::ItemOf(const KeyValue& kv) const {
  return {.id = plan_.IdOf(kv.key),
          .value = kv.value,
          .priority = plan_.PriorityOf(kv.key).value_or(0)};
}

absl::StatusOr<QueuePlan::Next> Queue::Look(Patience& patience) const {
  std::string after;
  for (;;) {
    absl::StatusOr<TxnResult> look = patience.Read(plan_.Look(after, options_.in_flight_max));
    if (!look.ok()) return look.status();
    QueuePlan::Next next = plan_.NextOf(*look);
    if (next.in_flight >= options_.in_flight_max) {
      next.found = false;
      return next;
    }
    if (next.found || next.look_after.empty()) return next;
    after = next.look_after;  // at most in_flight_max items are taken: this ends
  }
}

absl::StatusOr<bool> Queue::TryOnce(Patience& patience, Seize& seize, int64_t* revision) {
  for (;;) {
    absl::StatusOr<QueuePlan::Next> next = Look(patience);
    if (!next.ok()) return next.status();
    *revision = next->revision;
    if (!next->found) return false;
    absl::StatusOr<bool> seized = seize(patience, next->item);
    if (!seized.ok() || *seized) return seized;
    if (absl::Status left = patience.Pause(); !left.ok()) return left;
  }
}

absl::Status Queue::WaitAndSeize(const CallOptions& call, Seize seize) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  Patience patience(session_->impl(), session_, call);
  int64_t revision = 0;
  absl::StatusOr<bool> seized = TryOnce(patience, seize, &revision);
  if (!seized.ok()) return seized.status();
  if (*seized) return absl::OkStatus();
  absl::StatusOr<Claim::Attempt> turn =
      Claim::Acquire(session_, {.kind = "queue", .name = plan_.turn()}, patience.ForWait());
  if (!turn.ok()) return turn.status();
  for (;;) {
    seized = TryOnce(patience, seize, &revision);
    if (!seized.ok()) return seized.status();
    if (*seized) return absl::OkStatus();
    absl::Status changed =
        patience.WaitForChange({.range = plan_.ItemsAndMarks(), .after_revision = revision});
    if (!changed.ok()) return changed;
  }
}

Queue::Seize Queue::PopInto(std::optional<QueueItem>* popped) const {
  return [this, popped](Patience& patience, const KeyValue& item) -> absl::StatusOr<bool> {
    absl::StatusOr<TxnResult> result =
        Client(session_->impl()).Commit(plan_.Pop(item), patience.ForCall());
    if (!result.ok()) return result.status();
    if (!result->succeeded) return false;
    *popped = ItemOf(item);
    CountEvent(session_->impl()->metrics(), "queue", name_, "popped");
    return true;
  };
}

Queue::Seize Queue::TakeInto(std::optional<TakenItem>* taken) const {
  return [this, taken](Patience& patience, const KeyValue& item) -> absl::StatusOr<bool> {
    // Tells attempts apart, of other processes as well: a lease may be taken over.
    const std::string mark = absl::StrCat(absl::Hex(patience.Draw()));
    absl::StatusOr<TxnResult> result = patience.CommitIdempotent(plan_.Take(item, lease_, mark));
    const KeyValue* put = nullptr;
    if (result.ok() && QueuePlan::TookIt(*result, lease_, mark)) {
      put = result->get(result->succeeded ? 1 : 0);
    }
    if (put == nullptr) {
      // Else the item might stay hidden, marked for nobody, as long as the session lives.
      if (patience.left_stray()) TakeBack(session_, plan_.Untake(item.key, mark));
      if (!result.ok()) return result.status();
      REACHED("coordination: somebody else was faster to take");
      return false;
    }
    auto rep = std::make_unique<TakenItem::Rep>();
    rep->session = session_;
    rep->queue = name_;
    rep->item = ItemOf(item);
    rep->item_key = item.key;
    rep->taken_key = put->key;
    rep->revision = put->create_revision;
    if (patience.left_stray()) rep->stray = plan_.Untake(item.key, mark);
    rep->Count("taken");
    *taken = TakenItem(std::move(rep));
    return true;
  };
}

absl::StatusOr<QueueItem> Queue::Pop(const CallOptions& call) {
  std::optional<QueueItem> popped;
  absl::Status status = WaitAndSeize(call, PopInto(&popped));
  if (!status.ok()) return status;
  return *std::move(popped);
}

absl::StatusOr<TakenItem> Queue::Take(const CallOptions& call) {
  std::optional<TakenItem> taken;
  absl::Status status = WaitAndSeize(call, TakeInto(&taken));
  if (!status.ok()) return status;
  return *std::move(taken);
}

absl::StatusOr<std::optional<QueueItem>> Queue::TryPop(const CallOptions& call) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  Patience patience(session_->impl(), session_, Patience::Bounded(*session_->impl(), call));
  std::optional<QueueItem> popped;
  Seize seize = PopInto(&popped);
  int64_t revision = 0;
  absl::StatusOr<bool> seized = TryOnce(patience, seize, &revision);
  if (!seized.ok()) return seized.status();
  return popped;
}

absl::StatusOr<std::optional<TakenItem>> Queue::TryTake(const CallOptions& call) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  Patience patience(session_->impl(), session_, Patience::Bounded(*session_->impl(), call));
  std::optional<TakenItem> taken;
  Seize seize = TakeInto(&taken);
  int64_t revision = 0;
  absl::StatusOr<bool> seized = TryOnce(patience, seize, &revision);
  if (!seized.ok()) return seized.status();
  return taken;
}

}  // namespace conclave
