#include "conclave/coordination/double_barrier.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/coordination_metrics.h"
#include "conclave/coordination/names.h"

namespace conclave {
namespace {

constexpr absl::Duration kGiveUpTimeout = absl::Seconds(2);

using Entering = DoubleBarrierPlan::Entering;

}  // namespace

DoubleBarrier::DoubleBarrier(const Session& session, std::string_view name, int members)
    : session_(session.rep()),
      name_(name),
      members_(members),
      plan_(name, session.lease_id(), members) {}

absl::Status DoubleBarrier::Valid() const {
  if (absl::Status name = CheckName("a barrier", name_); !name.ok()) return name;
  if (members_ < 1 || members_ > kMembersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a double barrier has 1 to ", kMembersMax, " members, not ", members_));
  }
  if (session_ == nullptr) return absl::FailedPreconditionError("no session");
  return absl::OkStatus();
}

absl::StatusOr<DoubleBarrierView> DoubleBarrier::Read(Patience& patience) const {
  absl::StatusOr<TxnResult> look = patience.Read(plan_.Look());
  if (!look.ok()) return look.status();
  return DoubleBarrierPlan::ViewOf(*look, 0);
}

// ---- Entering
// --------------------------------------------------------------------------------------

absl::Status DoubleBarrier::Enter(const CallOptions& call) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  if (own_revision_ != 0) return absl::FailedPreconditionError("inside already: Leave first");
  Patience patience(session_->impl(), session_, call);
  absl::Status entered = EnterRound(patience);
  if (!entered.ok() && own_revision_ != 0) return GiveUp(entered);
  if (entered.ok()) CountEvent(session_->impl()->metrics(), "double_barrier", name_, "entered");
  return entered;
}

absl::Status DoubleBarrier::EnterRound(Patience& patience) {
  for (;;) {
    DoubleBarrierView view;
    if (own_revision_ == 0) {
      absl::StatusOr<TxnResult> joined = patience.CommitIdempotent(plan_.Join());
      if (!joined.ok()) {
        own_revision_ = -1;  // it may wait after all: then it must be taken away
        return joined.status();
      }
      view = DoubleBarrierPlan::ViewOf(*joined, joined->succeeded ? 1 : 0);
      const KeyValue* own = plan_.Own(view);
      own_revision_ = own == nullptr ? 0 : own->create_revision;
      if (own == nullptr) {  // a round is on
        absl::StatusOr<DoubleBarrierView> over = AwaitRoundEnd(patience, std::move(view), 0);
        if (!over.ok()) return over.status();
        continue;
      }
    } else {
      absl::StatusOr<DoubleBarrierView> read = Read(patience);
      if (!read.ok()) return read.status();
      view = *std::move(read);
    }
    switch (plan_.OnEntering(view)) {
      case Entering::kInside:
        round_ = view.ready->create_revision;
        left_ = false;
        return absl::OkStatus();
      case Entering::kGone:
        own_revision_ = 0;
        return absl::AbortedError("our place at the barrier is gone");
      case Entering::kMismatch:
        return absl::FailedPreconditionError(
            absl::StrCat("others at ", name_, " expect another number of members than ", members_));
      case Entering::kOpen: {
        // If it fails somebody was faster, or has gone: look.
        absl::StatusOr<TxnResult> opened = patience.CommitIdempotent(plan_.Open(view));
        if (!opened.ok()) return opened.status();
        break;
      }
      case Entering::kRoundOn: {
        // It has its members, without us: step aside, for it ends when nobody waits.
        absl::StatusOr<TxnResult> aside = patience.CommitIdempotent(
            {.conditions = {CreateRevision(plan_.own_key()) == own_revision_},
             .success = {Delete(plan_.own_key())}});
        if (!aside.ok()) return aside.status();
        own_revision_ = 0;
        break;
      }
      case Entering::kWait: {
        absl::Status changed = patience.WaitForChange(
            {.range = plan_.ready_key(), .after_revision = view.revision, .no_deletes = true});
        if (!changed.ok()) return changed;
        break;
      }
    }
  }
}

absl::Status DoubleBarrier::GiveUp(const absl::Status& why) {
  Patience patience(session_->impl(), session_, {.timeout = kGiveUpTimeout});
  if (own_revision_ < 0) {
    absl::StatusOr<DoubleBarrierView> view = Read(patience);
    const KeyValue* own = view.ok() ? plan_.Own(*view) : nullptr;
    own_revision_ = own == nullptr ? 0 : own->create_revision;
    if (own == nullptr) return why;
  }
  absl::StatusOr<TxnResult> gone = patience.CommitIdempotent(plan_.GiveUp(own_revision_));
  if (gone.ok() && !gone->succeeded) {
    const DoubleBarrierView view = DoubleBarrierPlan::ViewOf(*gone, 0);
    if (plan_.OnEntering(view) == Entering::kInside) {
      round_ = view.ready->create_revision;
      left_ = false;
      return absl::OkStatus();
    }
    if (plan_.Own(view) != nullptr) {
      (void)patience.CommitIdempotent(
          {.conditions = {CreateRevision(plan_.own_key()) == own_revision_},
           .success = {Delete(plan_.own_key())}});
    }
  }
  own_revision_ = 0;  // else the lease takes the key along
  return why;
}

// ---- Leaving
// ---------------------------------------------------------------------------------------

absl::StatusOr<Departure> DoubleBarrier::Leave(const CallOptions& call) {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  if (round_ == 0) return absl::FailedPreconditionError("not inside: Enter first");
  Patience patience(session_->impl(), session_, call);
  if (!left_) {
    absl::StatusOr<TxnResult> left = patience.CommitIdempotent(plan_.Leave(own_revision_, round_));
    if (!left.ok()) {
      if (absl::IsAborted(left.status())) own_revision_ = round_ = 0;
      return left.status();
    }
    // A miss may be the echo of an attempt whose answer was lost: then our mark says so.
    const KeyValue* mark = left->succeeded ? nullptr : left->get(0);
    if (!left->succeeded && (mark == nullptr || mark->value != absl::StrCat(round_))) {
      own_revision_ = round_ = 0;
      return absl::AbortedError("our place inside the barrier was lost");
    }
    left_ = true;
    CountEvent(session_->impl()->metrics(), "double_barrier", name_, "left");
  }
  absl::StatusOr<DoubleBarrierView> view = Read(patience);
  if (view.ok()) view = AwaitRoundEnd(patience, *std::move(view), round_);
  if (!view.ok()) return view.status();
  Departure departure{.round = round_, .lost = DoubleBarrierPlan::LostIn(*view, round_)};
  own_revision_ = round_ = 0;
  left_ = false;
  return departure;
}

// Until the round is over; 0: the one that view shows. Whoever sees that nobody is inside ends it.
absl::StatusOr<DoubleBarrierView> DoubleBarrier::AwaitRoundEnd(Patience& patience,
                                                               DoubleBarrierView view,
                                                               int64_t round) {
  if (round == 0 && view.ready.has_value()) round = view.ready->create_revision;
  while (!DoubleBarrierPlan::RoundOver(view, round)) {
    if (view.waiters.empty()) {
      absl::StatusOr<TxnResult> finished = patience.CommitIdempotent(plan_.Finish(view));
      if (!finished.ok()) return finished.status();
    } else {
      absl::Status changed = patience.WaitForChange(
          {.range = plan_.WaitFor(view), .after_revision = view.revision, .no_puts = true});
      if (!changed.ok()) return changed;
    }
    absl::StatusOr<DoubleBarrierView> read = Read(patience);
    if (!read.ok()) return read.status();
    view = *std::move(read);
  }
  return view;
}

absl::StatusOr<Occupancy> DoubleBarrier::Look(const CallOptions& call) const {
  if (absl::Status valid = Valid(); !valid.ok()) return valid;
  absl::StatusOr<TxnResult> look = Client(session_->impl()).Commit(plan_.Look(), call);
  if (!look.ok()) return look.status();
  const DoubleBarrierView view = DoubleBarrierPlan::ViewOf(*look, 0);
  Occupancy occupancy;
  const int present = static_cast<int>(view.waiters.size());
  if (!view.ready.has_value()) {
    occupancy.waiting = present;
    return occupancy;
  }
  occupancy.round = view.ready->create_revision;
  occupancy.inside = present;
  occupancy.lost = DoubleBarrierPlan::Lost(view);
  return occupancy;
}

}  // namespace conclave
