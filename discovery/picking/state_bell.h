// StateBell: the state of a picking channel as a whole, and the waiting for its changes.
//
// ChannelInterface promises that a completion queue of the application's gets a tag when the state
// changes (ok) or a deadline passes (not ok). Nothing but gRPC's own code can put tags on such a
// queue, and of that only a channel's state watch has these meanings. So those who wait watch the
// bell: an idle channel to nowhere, whose end is what they hear.
//
// Thread-safe.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace conclave::picking {

class StateBell {
 public:
  grpc_connectivity_state state() const { return state_.load(std::memory_order_acquire); }
  void Set(grpc_connectivity_state state);
  // As ChannelInterface::NotifyOnStateChange.
  void Notify(grpc_connectivity_state last_observed, gpr_timespec deadline,
              grpc::CompletionQueue* queue, void* tag);
  bool Wait(grpc_connectivity_state last_observed, gpr_timespec deadline);

 private:
  std::atomic<grpc_connectivity_state> state_ = GRPC_CHANNEL_CONNECTING;
  std::mutex mutex_;
  std::shared_ptr<grpc::Channel> bell_;  // guarded by mutex_; null: nobody has waited
};

}  // namespace conclave::picking
