// EngineObserver: who counts what an engine does. Each function is called on the engine's thread,
// except OnCall, which other threads call as well; none may call the engine.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "conclave/base/time.h"

namespace conclave {

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;

  // A call has ended, after all its attempts.
  virtual void OnCall(std::string_view method, absl::StatusCode code, Duration took) = 0;
  virtual void OnRetry(std::string_view method) = 0;
  // A retry waits for the budget.
  virtual void OnRetryHeld() = 0;
  // A call or a stream has left a member that did not do what it should.
  virtual void OnFailover(std::string_view method) = 0;
  // A stream has been opened, and so resumed if it is not the first.
  virtual void OnStreamOpened(std::string_view method) = 0;
  // A renewal was answered.
  virtual void OnKeepAlive(Duration took) = 0;
  virtual void OnSession(int alive, int suspect) = 0;  // how many there are now
  virtual void OnSessionLost() = 0;
  virtual void OnWatches(size_t count) = 0;
  virtual void OnEvents(size_t count) = 0;
  virtual void OnResync() = 0;
  // An answer that no server of the protocol gives; `what` is one of a few words.
  virtual void OnNonsense(std::string_view what) = 0;
};

}  // namespace conclave
