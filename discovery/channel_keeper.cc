#include "conclave/discovery/channel_keeper.h"

#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>

#include <chrono>
#include <utility>

namespace conclave {
namespace {

// How long after its last owner's end a channel may be held by a watch of ours. Normally no time at
// all: the end of a channel is a change of its state.
constexpr std::chrono::seconds kRecheck(1);

}  // namespace

ChannelKeeper::ChannelKeeper() : queue_(std::make_unique<grpc::CompletionQueue>()) {
  thread_ = std::thread([this] { Run(); });
}

ChannelKeeper::~ChannelKeeper() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_->Shutdown();
  }
  thread_.join();
}

void ChannelKeeper::Keep(const std::shared_ptr<grpc::Channel>& channel) {
  uintptr_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_id_;
    kept_[id] = channel;
  }
  Arm(id);
}

void ChannelKeeper::Arm(uintptr_t id) {
  std::weak_ptr<grpc::Channel> kept;
  {
    const std::lock_guard lock(mutex_);
    kept = kept_.at(id);
  }
  // Outside of the lock: should this be the last owner, the channel ends here.
  const std::shared_ptr<grpc::Channel> channel = kept.lock();
  const std::lock_guard lock(mutex_);
  if (stopping_ || channel == nullptr) {
    kept_.erase(id);
    return;
  }
  const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  channel->NotifyOnStateChange(state, std::chrono::system_clock::now() + kRecheck, queue_.get(),
                               reinterpret_cast<void*>(id));
}

void ChannelKeeper::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    Arm(reinterpret_cast<uintptr_t>(tag));
  }
}

}  // namespace conclave
