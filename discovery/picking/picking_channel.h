// PickingChannel: a grpc::ChannelInterface that gives each call a backend when it starts.
//
//   stub -> CreateCall -> Routes (what was published last) -> PickTable -> Connection ->
//   grpc::Channel
//
// From CreateCall on the call is one of that grpc::Channel: operations, deadlines and cancellation
// are gRPC's own, and reach no code of ours but the counting at its end. Calls that begin while no
// backend is ready are made on the waiting channel, a lazy one of Dial's, which has the semantics
// of gRPC: they wait for the first backend there is.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/impl/channel_interface.h>

#include <memory>
#include <string>

#include "conclave/discovery/picking/core.h"

namespace conclave::picking {

class PickingChannel final : public grpc::ChannelInterface {
 public:
  PickingChannel(Core::Options options, Service service,
                 std::shared_ptr<grpc::Channel> waiting_channel);

  grpc_connectivity_state GetState(bool try_to_connect) override;
  PickingStats Stats() const { return core_.Stats(); }

 private:
  grpc::internal::Call CreateCall(const grpc::internal::RpcMethod& method,
                                  grpc::ClientContext* context,
                                  grpc::CompletionQueue* queue) override;
  grpc::internal::Call CreateCallInternal(const grpc::internal::RpcMethod& method,
                                          grpc::ClientContext* context,
                                          grpc::CompletionQueue* queue,
                                          size_t interceptor_pos) override;
  void PerformOpsOnCall(grpc::internal::CallOpSetInterface* ops,
                        grpc::internal::Call* call) override;
  void* RegisterMethod(const char* method) override;
  void NotifyOnStateChangeImpl(grpc_connectivity_state last_observed, gpr_timespec deadline,
                               grpc::CompletionQueue* queue, void* tag) override;
  bool WaitForStateChangeImpl(grpc_connectivity_state last_observed,
                              gpr_timespec deadline) override;
  grpc::CompletionQueue* CallbackCQ() override;

  // A connection for the call among those that are ready; null if there is none. *refused: the
  // application's picker wants no backend to have it.
  Connection* Pick(const Routes& routes, const grpc::internal::RpcMethod& method,
                   const grpc::ClientContext& context, bool* refused);

  const std::shared_ptr<grpc::Channel> waiting_channel_;
  // Where calls fail at once, each for its reason.
  const std::shared_ptr<grpc::Channel> empty_channel_;
  const std::shared_ptr<grpc::Channel> refusing_channel_;
  Core core_;
};

}  // namespace conclave::picking
