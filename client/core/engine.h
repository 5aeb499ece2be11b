// Engine: the whole client as a deterministic state machine.
//
// Purpose: calls with retry and failover, the watch stream, the keep-alive stream, timers. Recipes
// run on it too, as callbacks of its calls, watches and timers. Thread: one; the actor's IO thread
// (or the simulator). Nothing here locks, blocks or reads a clock: the actor says Advance(now)
// before and after it hands in events. Invariants: no callback runs inside the function that asked
// for it (completions are deferred to the end of the input); every call's callback runs exactly
// once, at the latest at Shutdown.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"
#include "conclave/client/core/endpoint_pool.h"
#include "conclave/client/core/engine_observer.h"
#include "conclave/client/core/judge.h"
#include "conclave/client/core/log.h"
#include "conclave/client/core/name_space.h"
#include "conclave/client/core/retry_budget.h"
#include "conclave/client/core/transport.h"

namespace conclave {

class LeaseKeeper;
class TokenKeeper;
class WatchMux;

using CallId = uint64_t;  // 0 is none
using TimerId = std::pair<Instant, uint64_t>;

// What threads other than the engine's may read of it.
struct EngineVitals {
  std::atomic<int64_t> newest_revision = 0;      // of the store, that any answer has told of
  std::atomic<Instant> watch_heard = Instant{};  // when the watch stream last said anything
};

// Who hears of a stream.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  virtual void OnMessage(std::string_view message) = 0;
  virtual void OnClosed(const WireStatus& status) = 0;  // the last word
};

struct EngineOptions {
  std::vector<std::string> endpoints{};  // "host:port"; may be none at first
  uint64_t seed = 0;
  NameSpace name_space{};
  std::string user{};  // empty: the client says nothing about who it is
  std::string password{};
  Duration attempt_timeout = std::chrono::seconds(1);
  Duration watch_silence = std::chrono::seconds(30);
  Duration watch_answer_timeout = std::chrono::seconds(5);
  RetryBudgetOptions retry_budget{};
  LogSink log{};                       // none: not a word
  EngineObserver* observer = nullptr;  // outlives the engine
  std::shared_ptr<EngineVitals> vitals = std::make_shared<EngineVitals>();
};

class Engine {
 public:
  using Work = absl::AnyInvocable<void()>;
  using UnaryDone = absl::AnyInvocable<void(absl::StatusOr<std::string>)>;

  struct UnaryCall {
    std::string_view method;
    CallKind kind = CallKind::kRead;
    std::string request{};
    Instant deadline = kNever;
    bool require_leader = true;
    std::optional<size_t> endpoint{};  // this member only, one attempt
    bool needs_token = true;           // if the client has a user
  };

  Engine(EngineOptions options, Transport& transport);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // ---- Time. Advance runs what is due and what is deferred.
  void Advance(Instant now);
  Instant now() const { return now_; }
  Instant NextDeadline() const;

  // ---- For clients and recipes.
  TimerId At(Instant when, Work work);
  TimerId After(Duration delay, Work work) { return At(now_ + delay, std::move(work)); }
  void CancelTimer(TimerId& timer);  // fine if it ran already; clears the id
  void Defer(Work work);

  CallId Call(UnaryCall call, UnaryDone done);
  // The call ends with Cancelled, unless it has ended already.
  void Cancel(CallId id);
  // The same as Call, for one whose first attempt was made past the engine (by the caller's own
  // thread) since `began` and has failed.
  CallId Continue(UnaryCall call, size_t endpoint, const WireStatus& first, Instant began,
                  UnaryDone done);
  // Calls that were made past the engine and ended well.
  void OnDirectCalls(uint64_t count) { budget_.OnCalls(static_cast<double>(count)); }

  // Replaces the set of endpoints; at least one, and their names are distinct. What runs on those
  // that stay goes on; streams on those that go are moved.
  void SetEndpoints(const std::vector<EndpointPool::Endpoint>& endpoints);

  WatchMux& watches() { return *watches_; }
  LeaseKeeper& leases() { return *leases_; }
  Prng& prng() { return prng_; }
  const EngineOptions& options() const { return options_; }
  EngineObserver* observer() const { return options_.observer; }
  void Log(LogLevel level, std::string_view line) const;
  // A server has said what no server of the protocol says: counted, and logged once for each
  // `what`, which is one of a few literals.
  void OnNonsense(std::string_view what, std::string_view detail);
  // ---- The client's token. Null if it has no user.
  TokenKeeper* tokens() { return tokens_.get(); }
  // False: streams wait for it (their OnEndpointsChanged comes when it is there).
  bool MayOpenStreams() const;
  bool down() const { return down_; }
  // The keeper has one, or was refused.
  void OnToken(const absl::Status& status);

  // A revision of the store that a server has told of.
  void OnRevision(int64_t revision);
  // A member does not do what it should: the others are preferred for a while.
  void Blame(size_t endpoint, std::string_view method, std::string_view why);

  // Ends everything: all calls get Cancelled, sessions are lost, streams close, timers go. Nothing
  // may be asked afterwards.
  void Shutdown();

  // ---- For the transport's actor.
  void OnUnaryDone(WireId id, const WireStatus& status, std::string response);
  void OnStreamMessage(WireId id, std::string_view message);
  void OnStreamClosed(WireId id, const WireStatus& status);

  // ---- For ResumingStream and Download.
  WireId OpenStream(size_t endpoint, std::string_view method, StreamListener* listener);
  WireId OpenDownload(size_t endpoint, std::string_view method, std::string_view request,
                      StreamListener* listener);
  void CloseStream(WireId id);
  EndpointPool& pool() { return pool_; }
  const EndpointPool& pool() const { return pool_; }
  Transport& transport() { return transport_; }

 private:
  struct PendingCall {
    UnaryCall call;
    UnaryDone done;
    size_t endpoint = 0;
    int attempts = 0;
    WireId wire = 0;  // of the attempt under way, 0 while waiting to try again
    TimerId retry{};
    bool cancelled = false;
    absl::Status last;
    Instant began{};
    uint64_t token_generation = 0;  // that the last attempt was sent with
    int token_refusals = 0;
  };

  void StartAttempt(CallId id, PendingCall& call);
  bool AwaitsToken(CallId id, PendingCall& call);
  bool RenewsToken(CallId id, PendingCall& call, const WireStatus& status);
  void OnAttemptFailed(CallId id, PendingCall& call, const WireStatus& status);
  Duration AttemptTimeout(const PendingCall& call) const;
  void TryAgain(CallId id, PendingCall& call);
  void Retry(CallId id);
  // Keeps the call in `queue` until it is started from there, or its deadline passes.
  void Hold(CallId id, PendingCall& call, std::deque<CallId>& queue);
  bool StartHeld(CallId id);
  void ReleaseHeld();
  void Finish(CallId id, absl::StatusOr<std::string> result);
  absl::Status GaveUp(const PendingCall& call) const;
  void RunDeferred();

  const EngineOptions options_;
  Transport& transport_;
  Prng prng_;
  EndpointPool pool_;
  Instant now_{};
  bool down_ = false;
  uint64_t next_id_ = 1;
  std::map<TimerId, Work> timers_;
  std::deque<Work> deferred_;
  std::map<CallId, PendingCall> calls_;
  RetryBudget budget_;
  std::deque<CallId> held_;  // wait for the budget; those that have ended are skipped
  std::deque<CallId> without_endpoint_;
  std::deque<CallId> without_token_;
  TimerId release_{};
  Instant outage_logged_{};
  std::set<std::string_view> nonsense_;
  std::map<WireId, CallId> attempts_;
  std::map<WireId, StreamListener*> streams_;
  std::unique_ptr<WatchMux> watches_;
  std::unique_ptr<LeaseKeeper> leases_;
  std::unique_ptr<TokenKeeper> tokens_;
};

}  // namespace conclave
