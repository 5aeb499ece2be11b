#include "conclave/discovery/picking/state_bell.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <utility>

namespace conclave::picking {

void StateBell::Set(grpc_connectivity_state state) {
  std::shared_ptr<grpc::Channel> rung;  // ends without the lock
  const std::lock_guard lock(mutex_);
  if (state_.load(std::memory_order_relaxed) == state) return;
  state_.store(state, std::memory_order_release);
  rung = std::move(bell_);
}

void StateBell::Notify(grpc_connectivity_state last_observed, gpr_timespec deadline,
                       grpc::CompletionQueue* queue, void* tag) {
  const std::lock_guard lock(mutex_);
  if (bell_ == nullptr) {
    bell_ = grpc::CreateChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials());
  }
  // The bell is IDLE; a watch for a change from anything else is over at once.
  const bool changed = state_.load(std::memory_order_relaxed) != last_observed;
  bell_->NotifyOnStateChange(changed ? GRPC_CHANNEL_READY : GRPC_CHANNEL_IDLE, deadline, queue,
                             tag);
}

bool StateBell::Wait(grpc_connectivity_state last_observed, gpr_timespec deadline) {
  grpc::CompletionQueue queue;
  Notify(last_observed, deadline, &queue, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return ok;
}

}  // namespace conclave::picking
