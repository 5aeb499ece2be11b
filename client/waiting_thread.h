// WaitingThread: a thread that waits on a condition variable of its own for what comes from the
// client. The deadline is on the client's clock, which knows that somebody waits (EngineLoop): so
// it comes as well where a test moves the clock.
//
//   WaitingThread waiting(impl, impl->PatientDeadlineOf(call), [&] { /* lock, unlock */
//   bell.notify_all(); }); bell.wait(lock, [&] { return ... || waiting.expired(); });
//
// Thread: the caller's, which blocks. `wake` runs on the loop's thread, not after the destructor.
// The destructor must not hold a lock that `wake` takes.
#pragma once

#include <functional>
#include <memory>

#include "conclave/base/time.h"

namespace conclave {

class ClientImpl;

class WaitingThread {
 public:
  // kNever: no deadline.
  WaitingThread(std::shared_ptr<ClientImpl> impl, Instant deadline, std::function<void()> wake);
  ~WaitingThread();
  WaitingThread(const WaitingThread&) = delete;
  WaitingThread& operator=(const WaitingThread&) = delete;

  bool expired() const;

 private:
  struct State;
  const std::shared_ptr<ClientImpl> impl_;
  const std::shared_ptr<State> state_;
};

}  // namespace conclave
