// ChangeWait: waits for the next change of a range behind a revision. Recipes that wait look, wait
// for a change, and look again; this is their middle step.
//
//   waiting -> done: changed (or compacted away, which a look clears up as well), out of time,
//              cancelled, the session lost, or the watch refused
//
// Thread: the engine's. `done` runs once, never from within.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/types.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {

class ChangeWait : public std::enable_shared_from_this<ChangeWait> {
 public:
  struct Request {
    KeyRange range{};
    int64_t after_revision = 0;  // of the look that said to wait
    bool no_puts = false;
    bool no_deletes = false;
  };
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // `session` may be null; else its loss ends the wait with Aborted.
  ChangeWait(Engine& engine, std::shared_ptr<SessionCore> session, Request request);

  void Start(Instant deadline, Done done);
  void Cancel(const absl::Status& why);

 private:
  void OnBatch(const WatchBatch& batch);
  void Finish(const absl::Status& status);

  Engine& engine_;
  const std::shared_ptr<SessionCore> session_;
  const Request request_;
  Done done_;
  TimerId timer_{};
  WatchHandle watch_ = 0;
  uint64_t on_session_lost_ = 0;
};

}  // namespace conclave
