// EngineLoop: what runs a client's Engine: a thread, a transport and a clock. The only face of it
// that the handles of client.h and the recipes see, so a client lives as well on gRPC and the
// machine's clock (client/grpc/io_loop.h) as in a test, inside one process and on a clock that the
// test moves.
#pragma once

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "conclave/base/time.h"
#include "conclave/client/core/engine.h"

namespace conclave {

class EngineLoop {
 public:
  // Cancels everything that is under way (Engine::Shutdown) and ends the thread. Not on the loop's
  // own thread.
  virtual ~EngineLoop() = default;

  // Runs `work` on the loop's thread, in order. Any thread. Work that is still queued when the loop
  // ends runs after Engine::Shutdown, so nothing is forgotten.
  virtual void Post(absl::AnyInvocable<void(Engine&)> work) = 0;
  virtual bool OnThisThread() const = 0;
  // The clock that the engine's deadlines are on. Any thread. It never goes back.
  virtual Instant Now() const = 0;

  // May run `work` on the caller's own thread, and then the whole loop in the place of the loop's
  // thread until `done()`: a blocking call then costs no hand-over between threads. Meanwhile the
  // caller's thread is the loop's thread whenever it is in the engine. False: nothing was run,
  // because the loop is busy or cannot do this; Post it.
  virtual bool RunDirectly(absl::FunctionRef<void(Engine&)> /*work*/,
                           absl::FunctionRef<bool()> /*done*/) {
    return false;
  }

  // A thread begins to wait for something that comes from this loop; it has come. For a clock that
  // runs while somebody waits; the machine's does not ask. Each begin has its end, on any thread.
  // kLastWord: it is a destructor's, which must not wait for ever.
  enum class Wait { kCall, kLastWord };
  virtual void WaitBegins(Wait) {}
  virtual void WaitEnds(Wait) {}
};

}  // namespace conclave
