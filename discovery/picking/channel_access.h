// ChannelAccess: what grpc::ChannelInterface and grpc::ClientContext keep for gRPC's own stubs.
//
// A channel of our own has to hand calls on to real channels, and ring hash has to see a call's
// metadata; gRPC offers no public way to either. Its classes befriend all specialisations of
// BlockingUnaryCallImpl, so one for a type of ours gets in, checked by the compiler as any other
// code.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/impl/channel_interface.h>
#include <grpcpp/impl/rpc_method.h>

#include <map>
#include <string>

namespace conclave::picking {
struct AccessTag;
}  // namespace conclave::picking

namespace grpc::internal {

template <>
class BlockingUnaryCallImpl<conclave::picking::AccessTag, conclave::picking::AccessTag> {
 public:
  static Call CreateCall(ChannelInterface& channel, const RpcMethod& method, ClientContext* context,
                         CompletionQueue* queue) {
    return channel.CreateCall(method, context, queue);
  }
  static CompletionQueue* CallbackCQ(ChannelInterface& channel) { return channel.CallbackCQ(); }
  static const std::multimap<std::string, std::string>& Metadata(const ClientContext& context) {
    return context.send_initial_metadata_;
  }
  static bool WaitForReady(const ClientContext& context) {
    return (context.initial_metadata_flags() & GRPC_INITIAL_METADATA_WAIT_FOR_READY) != 0;
  }
};

}  // namespace grpc::internal

namespace conclave::picking {
using ChannelAccess = grpc::internal::BlockingUnaryCallImpl<AccessTag, AccessTag>;
}  // namespace conclave::picking
