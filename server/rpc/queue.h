// Queue: one gRPC completion queue, its thread, and what the thread has in hand.
#pragma once

#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/base/mailbox.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/rpc/completion.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::rpc {

// A burst ends after so many events although more are ready: a bound on how long the first request waits for the
// last one.
inline constexpr int kBurstEventsMax = 512;

// The process's monotonic clock, in the core's unit.
Instant Now();

// Owned by its thread except where a member says "any thread".
class Queue {
 public:
  Queue(int index, std::unique_ptr<grpc::ServerCompletionQueue> queue, BurstHandler* handler);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  void StartThread();
  // Any other thread; after all servers and channels of the queue are shut down.
  void ShutDownAndJoin();

  // Any thread: the burst handler will be called.
  void Wake();
  // Any thread: runs `task` on the queue's thread.
  void Post(std::function<void()> task);
  // True on the queue's own thread.
  bool IsCurrent() const;

  // Runs `task` on this thread at `when`. Few at a time (a peer's next attempt).
  void At(Instant when, std::function<void()> task);

  // What the burst has brought so far.
  std::vector<node::Input>& inputs() { return inputs_; }
  QueueCounters& counters() { return counters_; }
  int index() const { return index_; }
  grpc_completion_queue* cq() { return queue_->cq(); }
  grpc::ServerCompletionQueue* server_queue() { return queue_.get(); }

 private:
  void Run();
  void OnWake(bool ok);
  void EndBurst();
  void RunTimers();

  const int index_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  BurstHandler* const handler_;
  std::thread thread_;

  std::vector<node::Input> inputs_;
  std::vector<std::pair<Instant, std::function<void()>>> timers_;
  Instant sleep_until_ = kNever;
  bool woken_ = false;  // by Wake, since the last burst
  QueueCounters counters_;

  // The bell. gRPC's Alarm takes the way over one of its timer threads; an empty batch on a call that never
  // leaves this process completes on the spot, and its event wakes the queue.
  grpc_channel* bell_channel_ = nullptr;
  grpc_call* bell_call_ = nullptr;
  std::atomic<bool> bell_rung_{false};
  MemberCompletion<Queue, &Queue::OnWake> on_wake_{this};
  Mailbox<std::function<void()>> tasks_;
  std::vector<std::function<void()>> tasks_in_hand_;
};

}  // namespace conclave::rpc
