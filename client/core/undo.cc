#include "conclave/client/core/undo.h"

#include <utility>

#include "absl/status/statusor.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/endpoint_pool.h"
#include "conclave/client/core/engine.h"

namespace conclave {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(5);
constexpr Duration kRetryBase = std::chrono::milliseconds(50);
constexpr Duration kRetryCap = std::chrono::seconds(2);

class StrayUndo : public std::enable_shared_from_this<StrayUndo> {
 public:
  StrayUndo(std::shared_ptr<SessionCore> session, TxnRequest undo)
      : session_(std::move(session)),
        undo_(std::move(undo)),
        stray_until_(session_->engine().now() + kStrayMax) {}

  void Send() {
    if (session_->lost()) return;
    Engine& engine = session_->engine();
    calls::Txn(engine, undo_, engine.now() + kStepTimeout,
               [self = shared_from_this(), sent_at = engine.now()](
                   const absl::StatusOr<TxnResult>& result) { self->OnAnswer(result, sent_at); });
  }

 private:
  void OnAnswer(const absl::StatusOr<TxnResult>& result, Instant sent_at) {
    Engine& engine = session_->engine();
    auto again = [self = shared_from_this()] { self->Send(); };
    if (!result.ok()) {
      engine.After(FullJitter(failures_++, kRetryBase, kRetryCap, engine.prng()), again);
    } else if (sent_at < stray_until_) {
      engine.At(stray_until_, again);
    }
  }

  const std::shared_ptr<SessionCore> session_;
  const TxnRequest undo_;
  const Instant stray_until_;
  int failures_ = 0;
};

}  // namespace

void UndoStray(std::shared_ptr<SessionCore> session, TxnRequest undo) {
  std::make_shared<StrayUndo>(std::move(session), std::move(undo))->Send();
}

}  // namespace conclave
