// Unary calls: two completions each. The first is the call with its whole request (registered method, payload read by
// gRPC), the second says that the reply and status are out and the call is over.
//
// A caller that goes away before its reply is not watched for on the fast path, since that would cost every call a
// third operation: the core answers what it has taken on, and the reply goes nowhere. Only a call that waits longer than
// kWatchAfter gets the operation that tells of its cancellation, so that a queue of the core that is stuck (no leader)
// is not filled by callers who have given up.
#pragma once

#include <grpc/grpc.h>

#include <atomic>
#include <memory>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/rpc/call_slot.h"
#include "conclave/server/rpc/completion.h"

namespace conclave::rpc {

// Calls that wait in gRPC for the next request, for each method and queue. More calls may be open at once; these are
// how many can arrive within one burst without waiting for the thread.
inline constexpr int kPostedHot = 64;
inline constexpr int kPostedCold = 2;
inline constexpr Duration kWatchAfter = std::chrono::milliseconds(200);

class UnaryCall;

// All slots of one method on one queue. On the queue's thread, but for UnaryCall::Answer.
class UnaryMethod {
 public:
  UnaryMethod(CallHost* host, const MethodEntry* method, void* registered);
  ~UnaryMethod();

  void PostFirst();
  // Answers what is still at the core. The core must not answer any more.
  void AnswerAllStopped();
  // Calls that the core has held for long are watched for cancellation from now on.
  void WatchOldCalls(Instant now);

 private:
  friend class UnaryCall;
  void PostOne();

  CallHost* const host_;
  const MethodEntry* const method_;
  void* const registered_;
  MethodCounters* const counters_;
  std::vector<std::unique_ptr<UnaryCall>> calls_;
  std::vector<UnaryCall*> free_;
};

class UnaryCall final : public CallSlot {
 public:
  explicit UnaryCall(UnaryMethod* pool);
  ~UnaryCall();

  // Ends the call. Any thread: exactly once after it went to the core.
  void Answer(const node::Reply& reply);

 private:
  friend class UnaryMethod;
  enum class State : uint8_t { kFree, kPosted, kAtCore, kAnswering };

  void Post();
  void OnArrived(bool ok);
  void OnOver(bool ok);
  void OnCancelled(bool ok);
  void Release();
  void Watch();

  UnaryMethod* const pool_;
  std::atomic<State> state_{State::kFree};
  grpc_call* call_ = nullptr;
  gpr_timespec deadline_{};
  grpc_metadata_array metadata_;
  grpc_byte_buffer* payload_ = nullptr;
  Instant arrived_{};
  int cancelled_ = 0;
  int status_ = 0;
  size_t sent_bytes_ = 0;
  // gRPC allows one operation that waits for the end of a call. Whoever claims it first starts it: the final
  // batch of Answer, or WatchOldCalls.
  std::atomic<bool> close_claimed_{false};
  int operations_ = 0;  // under way after the call has arrived; the slot is free at 0
  MemberCompletion<UnaryCall, &UnaryCall::OnArrived> on_arrived_{this};
  MemberCompletion<UnaryCall, &UnaryCall::OnOver> on_over_{this};
  MemberCompletion<UnaryCall, &UnaryCall::OnCancelled> on_cancelled_{this};
};

}  // namespace conclave::rpc
