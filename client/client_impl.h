// What stands behind the handles of client.h: a client's threads, and the way from a caller's
// thread to the engine and back. For this library and the recipes, not for users.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "conclave/base/check.h"
#include "conclave/client/client.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/grpc/executor.h"
#include "conclave/client/grpc/io_loop.h"

namespace conclave {

// Threads: the loop (engine), callbacks (the user's), signals (stop tokens only, so that a slow
// callback does not delay the word that a lock is lost).
class ClientImpl {
 public:
  static std::shared_ptr<ClientImpl> Make(ConnectOptions options,
                                          std::vector<std::string> endpoints);

  const ConnectOptions& options() const { return options_; }
  const std::vector<std::string>& endpoints() const { return endpoints_; }
  IoLoop& loop() { return loop_; }
  Executor& callbacks() { return callbacks_; }
  Executor& signals() { return signals_; }

  // When a call that starts now must be over.
  Instant DeadlineOf(const CallOptions& call) const;
  // The same where no timeout means for ever.
  static Instant PatientDeadlineOf(const CallOptions& call);

  // Of watches: batches that wait for the callback thread. On the loop / on the callback thread.
  void BatchQueued(Engine& engine);
  void BatchDone();

 private:
  ClientImpl(ConnectOptions options, std::vector<std::string> endpoints);

  const ConnectOptions options_;
  const std::vector<std::string> endpoints_;
  std::atomic<int> watch_backlog_ = 0;
  std::atomic<bool> watches_paused_ = false;
  Executor signals_;
  Executor callbacks_;
  IoLoop loop_;  // last: ends first
};

// A callback of the user's that must not run once its owner is gone. Run on the callback thread.
template <typename... Args>
class GuardedCallback {
 public:
  explicit GuardedCallback(absl::AnyInvocable<void(Args...)> callback)
      : callback_(std::move(callback)) {}

  template <typename... Actual>
  void Run(Actual&&... args) {
    {
      absl::MutexLock lock(&mutex_);
      if (cancelled_ || !callback_) return;
      runner_ = std::this_thread::get_id();
    }
    callback_(std::forward<Actual>(args)...);
    absl::AnyInvocable<void(Args...)> garbage;
    absl::MutexLock lock(&mutex_);
    runner_ = std::thread::id();
    if (cancelled_) garbage = std::move(callback_);
  }

  // After this no callback runs, unless it is the caller.
  void Cancel() {
    absl::AnyInvocable<void(Args...)> garbage;
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (runner_ == std::this_thread::get_id()) return;
    mutex_.Await(absl::Condition(
        +[](GuardedCallback* self) {
          self->mutex_.AssertHeld();
          return self->runner_ == std::thread::id();
        },
        this));
    garbage = std::move(callback_);
  }

 private:
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id runner_ ABSL_GUARDED_BY(mutex_);
  absl::AnyInvocable<void(Args...)> callback_;
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

// One asynchronous call that a thread waits for. `start` runs on the loop's thread and gives the id
// to cancel it by; `done` may be called on any thread.
template <typename Result>
absl::StatusOr<Result> WaitForCall(
    ClientImpl& impl, const CallOptions& call,
    absl::AnyInvocable<CallId(Engine&, absl::AnyInvocable<void(absl::StatusOr<Result>)>)> start) {
  struct Wait {
    absl::Mutex mutex;
    std::optional<absl::StatusOr<Result>> result ABSL_GUARDED_BY(mutex);
    CallId id = 0;  // on the loop's thread
  };
  CONCLAVE_CHECK(!impl.loop().OnThisThread(), "a blocking call on the IO thread");
  if (call.stop.stop_requested()) return absl::CancelledError("stop was requested before the call");
  auto wait = std::make_shared<Wait>();
  impl.loop().Post([wait, start = std::move(start)](Engine& engine) mutable {
    wait->id = start(engine, [wait](absl::StatusOr<Result> result) {
      absl::MutexLock lock(&wait->mutex);
      wait->result = std::move(result);
    });
  });
  std::stop_callback on_stop(call.stop, [&impl, wait] {
    impl.loop().Post([wait](Engine& engine) { engine.Cancel(wait->id); });
  });
  absl::MutexLock lock(&wait->mutex);
  wait->mutex.Await(absl::Condition(
      +[](Wait* state) {
        state->mutex.AssertHeld();
        return state->result.has_value();
      },
      wait.get()));
  return *std::move(wait->result);
}

}  // namespace conclave
