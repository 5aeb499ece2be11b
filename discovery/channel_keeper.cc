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

struct ChannelKeeper::Kept {
  std::weak_ptr<grpc::Channel> channel;
};

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
  auto kept = std::make_unique<Kept>(Kept{.channel = channel});
  if (Arm(kept.get())) kept.release();  // from now on the queue's
}

bool ChannelKeeper::Arm(Kept* kept) {
  // Outside of the lock: should this be the last owner, the channel ends here.
  const std::shared_ptr<grpc::Channel> channel = kept->channel.lock();
  if (channel == nullptr) return false;
  const std::lock_guard lock(mutex_);
  if (stopping_) return false;
  const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  channel->NotifyOnStateChange(state, std::chrono::system_clock::now() + kRecheck, queue_.get(),
                               kept);
  return true;
}

void ChannelKeeper::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    std::unique_ptr<Kept> kept(static_cast<Kept*>(tag));
    if (Arm(kept.get())) kept.release();
  }
}

}  // namespace conclave
