// What stands behind the handles of client.h: a client's threads, and the way from a caller's
// thread to the engine and back. For this library and the recipes, not for users.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "conclave/base/check.h"
#include "conclave/client/client.h"
#include "conclave/client/core/endpoint_sync.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/engine_loop.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/grpc/executor.h"

namespace conclave {

class ClientMetrics;
class SrvFeed;

// Threads: the loop (engine), callbacks (the user's), signals (stop tokens only, so that a slow
// callback does not delay the word that a lock is lost). With srv:// endpoints a fourth one exists
// while the DNS is asked.
class ClientImpl {
 public:
  // What runs the engine. The clock, the network and the thread come with it.
  using LoopFactory = absl::AnyInvocable<std::unique_ptr<EngineLoop>(EngineOptions)>;

  // Over gRPC and the machine's clock.
  static std::shared_ptr<ClientImpl> Make(ConnectOptions options,
                                          std::vector<std::string> endpoints);
  // Over a loop of the caller's making, which is called once.
  static std::shared_ptr<ClientImpl> Make(ConnectOptions options,
                                          std::vector<std::string> endpoints,
                                          LoopFactory make_loop);

  ~ClientImpl();

  const ConnectOptions& options() const { return options_; }
  std::vector<std::string> endpoints() const;
  // On the loop's thread.
  EndpointSync& endpoint_sync() { return *endpoint_sync_; }
  const EngineVitals& vitals() const { return *vitals_; }
  EngineLoop& loop() { return *loop_; }
  Executor& callbacks() { return callbacks_; }
  Executor& signals() { return signals_; }
  // The user's registry of metrics; null if there is none.
  const std::shared_ptr<prometheus::Registry>& metrics() const { return options_.metrics; }
  // One line, to the user's sink or to stderr. Any thread.
  void Log(LogLevel level, std::string_view line) const { options_.log_sink(level, line); }

  // When a call that starts now must be over, on the loop's clock. CallOptions::deadline is of the
  // wall clock: what lies between it and now is what counts.
  Instant DeadlineOf(const CallOptions& call) const;
  // The same where no timeout means for ever.
  Instant PatientDeadlineOf(const CallOptions& call) const;

  // Of watches: batches that wait for the callback thread. On the loop / on the callback thread.
  void BatchQueued(Engine& engine);
  void BatchDone();

 private:
  ClientImpl(ConnectOptions options, std::vector<std::string> endpoints, LoopFactory make_loop);
  Instant After(absl::Duration duration) const;
  EngineOptions EngineOptionsOf(const std::vector<std::string>& endpoints) const;
  void StartFeeds();                   // of endpoints
  void SampleMetrics(Engine& engine);  // now and every second

  const ConnectOptions options_;
  const std::shared_ptr<EngineVitals> vitals_ = std::make_shared<EngineVitals>();
  const std::unique_ptr<ClientMetrics> metrics_;  // null: none are wanted
  mutable std::mutex endpoints_mutex_;
  std::vector<std::string> endpoints_;           // guarded by endpoints_mutex_
  std::unique_ptr<EndpointSync> endpoint_sync_;  // on the loop's thread
  std::unique_ptr<SrvFeed> srv_feed_;            // null: no srv://
  std::atomic<int> watch_backlog_ = 0;
  std::atomic<bool> watches_paused_ = false;
  Executor signals_{"conclave-signal"};
  Executor callbacks_{"conclave-call"};
  std::unique_ptr<EngineLoop> loop_;  // last: ends first
};

// A callback of the user's that must not run once its owner is gone. Run on the callback thread.
// (std::mutex here and below, not absl::Mutex: ThreadSanitizer cannot see through Debian's.)
template <typename... Args>
class GuardedCallback {
 public:
  explicit GuardedCallback(absl::AnyInvocable<void(Args...)> callback)
      : callback_(std::move(callback)) {}

  template <typename... Actual>
  void Run(Actual&&... args) {
    {
      std::lock_guard lock(mutex_);
      if (cancelled_ || !callback_) return;
      runner_ = std::this_thread::get_id();
    }
    callback_(std::forward<Actual>(args)...);
    absl::AnyInvocable<void(Args...)> garbage;
    {
      std::lock_guard lock(mutex_);
      runner_ = std::thread::id();
      if (cancelled_) garbage = std::move(callback_);
    }
    idle_.notify_all();
  }

  // After this no callback runs, unless it is the caller.
  void Cancel() {
    absl::AnyInvocable<void(Args...)> garbage;
    std::unique_lock lock(mutex_);
    cancelled_ = true;
    if (runner_ == std::this_thread::get_id()) return;
    idle_.wait(lock, [this] { return runner_ == std::thread::id(); });
    garbage = std::move(callback_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  bool cancelled_ = false;                      // guarded by mutex_
  std::thread::id runner_;                      // guarded by mutex_; none: it does not run
  absl::AnyInvocable<void(Args...)> callback_;  // replaced under mutex_, when it does not run
};

// The half of a Session on the side of the caller's threads.
class SessionRep {
 public:
  explicit SessionRep(std::shared_ptr<ClientImpl> impl,
                      absl::AnyInvocable<void(SessionHealth)> on_health)
      : impl_(std::move(impl)), on_health_(std::move(on_health)) {}

  const std::shared_ptr<ClientImpl>& impl() const { return impl_; }
  LeaseId lease() const { return lease_; }
  absl::Duration ttl() const { return ttl_; }
  SessionHealth health() const;
  bool alive() const;
  std::stop_token stop_token() const { return stop_.get_token(); }
  absl::Status Close(const CallOptions& call);
  // Starts to close and does not wait; no callback runs afterwards.
  void Abandon();

  // On the loop's thread only.
  const std::shared_ptr<SessionCore>& core() const { return core_; }

 private:
  friend class Client;
  void OnHealth(const std::shared_ptr<SessionRep>& self, SessionHealth health, Instant deadline);

  const std::shared_ptr<ClientImpl> impl_;
  LeaseId lease_ = 0;     // set before anybody else sees the object
  absl::Duration ttl_{};  // likewise
  std::shared_ptr<SessionCore> core_;
  std::atomic<SessionHealth> health_ = SessionHealth::kAlive;
  std::atomic<Instant> deadline_ = Instant{};
  std::stop_source stop_;
  GuardedCallback<SessionHealth> on_health_;
};

// In a destructor that waits: while it lives, the calls of this thread are last words.
class LastWord {
 public:
  LastWord() { ++depth_; }
  ~LastWord() { --depth_; }
  LastWord(const LastWord&) = delete;
  LastWord& operator=(const LastWord&) = delete;
  static EngineLoop::Wait Kind() {
    return depth_ > 0 ? EngineLoop::Wait::kLastWord : EngineLoop::Wait::kCall;
  }

 private:
  static inline thread_local int depth_ = 0;
};

// One asynchronous call that a thread waits for. `start` runs on the loop's thread (which may be
// this one: EngineLoop::RunDirectly) and gives the id to cancel it by; `done` may be called on any
// thread.
template <typename Result>
absl::StatusOr<Result> WaitForCall(
    ClientImpl& impl, const CallOptions& call,
    absl::AnyInvocable<CallId(Engine&, absl::AnyInvocable<void(absl::StatusOr<Result>)>)> start) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable bell;
    std::optional<absl::StatusOr<Result>> result;  // guarded by mutex
    CallId id = 0;                                 // on the loop's thread
    bool stopped = false;  // likewise: a stop came before the call had begun
  };
  CONCLAVE_CHECK(!impl.loop().OnThisThread(), "a blocking call on the IO thread");
  if (call.stop.stop_requested()) return absl::CancelledError("stop was requested before the call");
  auto wait = std::make_shared<Wait>();
  const EngineLoop::Wait kind = LastWord::Kind();
  // Before the call begins: it may run on this thread, which then hears of nothing else.
  std::stop_callback on_stop(call.stop, [&impl, wait] {
    impl.loop().Post([wait](Engine& engine) {
      wait->stopped = true;
      engine.Cancel(wait->id);
    });
  });
  auto begin = [wait, kind, loop = &impl.loop(), start = std::move(start)](Engine& engine) mutable {
    wait->id = start(engine, [wait, kind, loop](absl::StatusOr<Result> result) {
      loop->WaitEnds(kind);
      std::lock_guard lock(wait->mutex);
      wait->result = std::move(result);
      wait->bell.notify_one();
    });
    if (wait->stopped) engine.Cancel(wait->id);
  };
  impl.loop().WaitBegins(kind);
  const bool ran = impl.loop().RunDirectly([&begin](Engine& engine) { begin(engine); },
                                           [&wait] {
                                             std::lock_guard lock(wait->mutex);
                                             return wait->result.has_value();
                                           });
  if (!ran) impl.loop().Post(std::move(begin));
  std::unique_lock lock(wait->mutex);
  wait->bell.wait(lock, [&wait] { return wait->result.has_value(); });
  return *std::move(wait->result);
}

}  // namespace conclave
