// Connection: the real gRPC channel to one backend, and the count of the calls on it.
//
// Calls are counted by an interceptor, because it alone sees the end of every kind of call:
// blocking or not, unary or streaming. A call is under way from its creation until its status has
// been received, or until its ClientContext goes, for calls that nobody ever finished.
//
// Thread-safe. Calls keep the channel alive, and with it all that they touch here.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "conclave/discovery/picking/backend.h"
#include "conclave/discovery/picking/method_table.h"

namespace grpc::internal {
class RpcMethod;
class Call;
}  // namespace grpc::internal

namespace conclave::picking {

class Connection {
 public:
  struct Options {
    std::string target{};
    std::shared_ptr<grpc::ChannelCredentials> credentials{};
    grpc::ChannelArguments args{};
    std::shared_ptr<BackendLoad> load{};
    std::shared_ptr<MethodTable> methods{};
    // Called by the thread that ends the call, each time when so many calls in a row have failed.
    // 0: never.
    int failures_limit = 0;
    std::function<void()> on_failures{};
  };

  explicit Connection(const Options& options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  bool Ready() const { return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY; }

  // `method` is as a stub of the picking channel shows it.
  grpc::internal::Call CreateCall(const grpc::internal::RpcMethod& method,
                                  grpc::ClientContext* context, grpc::CompletionQueue* queue);

 private:
  const grpc::internal::RpcMethod* Register(const MethodTable::Entry& entry,
                                            const grpc::internal::RpcMethod& method);

  std::shared_ptr<grpc::Channel> channel_;
  std::mutex registering_;
  std::array<std::atomic<const grpc::internal::RpcMethod*>, MethodTable::kMethodsMax> methods_{};
};

}  // namespace conclave::picking
