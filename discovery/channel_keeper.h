// ChannelKeeper: sees to it that somebody polls the channels' sockets while the application is
// silent.
//
// A gRPC channel has no thread of its own. Where no call waits on it, a dropped connection and an
// update of its endpoints would be noticed only by a backup poller that runs every 5 s. A pending
// NotifyOnStateChange makes its completion queue poll the channel, and this thread polls that
// queue.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace grpc {
class Channel;
class CompletionQueue;
}  // namespace grpc

namespace conclave {

class ChannelKeeper {
 public:
  ChannelKeeper();
  // Takes up to kRecheck if a channel is still held by a call of the application; else no time.
  ~ChannelKeeper();
  ChannelKeeper(const ChannelKeeper&) = delete;
  ChannelKeeper& operator=(const ChannelKeeper&) = delete;

  // Keeps `channel` polled and connected for as long as others own it; does not own it itself.
  void Keep(const std::shared_ptr<grpc::Channel>& channel);

 private:
  void Run();
  // Has the queue report the channel's next change, or lets it go if it is gone or we are stopping.
  void Arm(uintptr_t id);

  std::unique_ptr<grpc::CompletionQueue> queue_;
  std::mutex mutex_;       // not absl::Mutex: ThreadSanitizer cannot see through Debian's
  bool stopping_ = false;  // guarded by mutex_
  // By the number that stands for them in the queue; guarded by mutex_.
  std::map<uintptr_t, std::weak_ptr<grpc::Channel>> kept_;
  uintptr_t last_id_ = 0;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace conclave
