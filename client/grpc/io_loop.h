// IoLoop: the thread that runs a client's Engine over gRPC.
//
// Thread: one, which waits on a gRPC completion queue (the async API; in gRPC 1.51 the callback API
// sleeps up to 100 ms after a quiet second). All of the engine's work happens there; other threads
// put work in with Post, and one alarm on the queue wakes it for a whole burst. Time:
// CLOCK_BOOTTIME, so that a lease's local deadline also passes while the machine is suspended.
//
// One exception: a thread that makes one blocking call after the other, and is alone in that,
// drives the engine and the network itself while it waits (RunDirectly), which saves two hand-overs
// between threads a call. The engine's mutex says whose turn it is, and only one thread at a time
// is in the network, for two would wake each other. After such a call the loop's thread stands back
// for kGrace, so that the next one finds the place free; what comes for a stream in that
// millisecond waits for the next call or for its end.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "conclave/base/time.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/engine_loop.h"
#include "conclave/client/core/tls_options.h"

namespace conclave {

struct IoLoopOptions {
  EngineOptions engine{};
  Duration keepalive_time = std::chrono::seconds(10);
  Duration keepalive_timeout = std::chrono::seconds(3);
  std::optional<TlsOptions> tls{};  // none: plain text
};

class IoLoop : public EngineLoop {
 public:
  explicit IoLoop(IoLoopOptions options);
  ~IoLoop() override;
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  void Post(absl::AnyInvocable<void(Engine&)> work) override;
  bool OnThisThread() const override;
  Instant Now() const override;  // CLOCK_BOOTTIME
  bool RunDirectly(absl::FunctionRef<void(Engine&)> work, absl::FunctionRef<bool()> done) override;
  void WaitEnds(Wait kind) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave
