#include "conclave/client/core/change_wait.h"

#include <utility>

namespace conclave {

ChangeWait::ChangeWait(Engine& engine, std::shared_ptr<SessionCore> session, Request request)
    : engine_(engine), session_(std::move(session)), request_(std::move(request)) {}

void ChangeWait::Start(Instant deadline, Done done) {
  done_ = std::move(done);
  watch_ = engine_.watches().Add(
      request_.range,
      {.from_revision = request_.after_revision + 1,
       .no_puts = request_.no_puts,
       .no_deletes = request_.no_deletes},
      [self = shared_from_this()](const WatchBatch& batch) { self->OnBatch(batch); });
  if (deadline != kNever) {
    timer_ = engine_.At(deadline, [self = shared_from_this()] {
      self->Finish(absl::DeadlineExceededError("nothing changed in time"));
    });
  }
  if (session_ == nullptr) return;
  on_session_lost_ = session_->OnLost(
      [self = shared_from_this()] { self->Finish(absl::AbortedError("the session is lost")); });
}

void ChangeWait::Cancel(const absl::Status& why) { Finish(why); }

void ChangeWait::OnBatch(const WatchBatch& batch) {
  if (!batch.status.ok()) return Finish(batch.status);
  if (batch.resynced || !batch.events.empty()) Finish(absl::OkStatus());
}

void ChangeWait::Finish(const absl::Status& status) {
  if (!done_) return;
  engine_.CancelTimer(timer_);
  engine_.watches().Remove(watch_);
  watch_ = 0;
  if (session_ != nullptr) session_->RemoveOnLost(on_session_lost_);
  engine_.Defer([done = std::move(done_), status]() mutable { done(status); });
  done_ = nullptr;
}

}  // namespace conclave
