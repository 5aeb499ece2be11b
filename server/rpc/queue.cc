#include "conclave/server/rpc/queue.h"

#include <grpc/slice.h>
#include <grpc/support/time.h>

#include <algorithm>
#include <chrono>

#include "conclave/base/check.h"
#include "conclave/server/rpc/method_table.h"

namespace conclave::rpc {
namespace {

thread_local const Queue* current_queue = nullptr;

gpr_timespec ToDeadline(Instant when) {
  if (when == kNever) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  const int64_t nanoseconds =
      std::max<int64_t>(0, std::chrono::nanoseconds(when - Now()).count());
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(nanoseconds, GPR_TIMESPAN));
}

}  // namespace

Instant Now() {
  return Instant(std::chrono::steady_clock::now().time_since_epoch());
}

Queue::Queue(int index, std::unique_ptr<grpc::ServerCompletionQueue> queue, BurstHandler* handler)
    : index_(index), queue_(std::move(queue)), handler_(handler) {
  counters_.methods = std::make_unique<MethodCounters[]>(AllMethods().size());
  bell_channel_ = grpc_lame_client_channel_create(nullptr, GRPC_STATUS_UNAVAILABLE, "a bell");
  const grpc_slice method = grpc_slice_from_static_string("/bell");
  bell_call_ = grpc_channel_create_call(bell_channel_, nullptr, 0, queue_->cq(), method, nullptr,
                                        gpr_inf_future(GPR_CLOCK_REALTIME), nullptr);
}

Queue::~Queue() {
  CONCLAVE_CHECK(!thread_.joinable(), "the queue's thread still runs");
  if (bell_call_ != nullptr) grpc_call_unref(bell_call_);
  grpc_channel_destroy(bell_channel_);
}

void Queue::StartThread() {
  thread_ = std::thread([this] { Run(); });
}

void Queue::ShutDownAndJoin() {
  if (!thread_.joinable()) {
    queue_->Shutdown();
    return;
  }
  Post([this] {
    grpc_call_unref(std::exchange(bell_call_, nullptr));
    queue_->Shutdown();
  });
  thread_.join();
}

bool Queue::IsCurrent() const { return current_queue == this; }

void Queue::Wake() {
  if (bell_rung_.exchange(true, std::memory_order_acq_rel)) return;
  grpc_call_start_batch(bell_call_, nullptr, 0, on_wake_.tag(), nullptr);
}

void Queue::Post(std::function<void()> task) {
  if (tasks_.Put(std::move(task))) Wake();
}

void Queue::At(Instant when, std::function<void()> task) {
  timers_.emplace_back(when, std::move(task));
  sleep_until_ = std::min(sleep_until_, when);
}

void Queue::OnWake(bool /*ok*/) {
  bell_rung_.store(false, std::memory_order_release);
  woken_ = true;
}

void Queue::RunTimers() {
  if (timers_.empty()) return;
  const Instant now = Now();
  std::vector<std::function<void()>> due;
  std::erase_if(timers_, [&](auto& timer) {
    if (timer.first > now) return false;
    due.push_back(std::move(timer.second));
    return true;
  });
  for (auto& task : due) task();
}

void Queue::EndBurst() {
  counters_.bursts.Add();
  woken_ = false;
  tasks_.TakeAll(&tasks_in_hand_);
  for (auto& task : tasks_in_hand_) task();
  RunTimers();
  sleep_until_ = handler_->OnBurst(index_, &inputs_);
  for (const auto& timer : timers_) sleep_until_ = std::min(sleep_until_, timer.first);
}

void Queue::Run() {
  current_queue = this;
  int burst_events = 0;
  for (;;) {
    // Inside a burst only what is ready counts; then sleep.
    const bool in_burst = burst_events > 0;
    const gpr_timespec deadline =
        in_burst ? gpr_inf_past(GPR_CLOCK_MONOTONIC) : ToDeadline(sleep_until_);
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_->AsyncNext(&tag, &ok, deadline);
    if (next == grpc::CompletionQueue::SHUTDOWN) break;
    if (next == grpc::CompletionQueue::GOT_EVENT) {
      counters_.events.Add();
      static_cast<Completion*>(tag)->Complete(ok);
      if (++burst_events < kBurstEventsMax) continue;
    }
    if (!inputs_.empty() || woken_ || !in_burst || Now() >= sleep_until_) EndBurst();
    burst_events = 0;
  }
  current_queue = nullptr;
}

}  // namespace conclave::rpc
