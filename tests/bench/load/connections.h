// The load's connections to a server: each one a TCP connection of its own, spread over the
// endpoints.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace conclave::bench {

class Connections {
 public:
  Connections(const std::vector<std::string>& endpoints, int count) {
    for (int i = 0; i < count; ++i) {
      grpc::ChannelArguments args;
      // Channels with equal arguments to one address would share a connection.
      args.SetInt("conclave.bench.connection", i);
      args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      args.SetMaxReceiveMessageSize(-1);
      stubs_.push_back(std::make_unique<grpc::GenericStub>(
          grpc::CreateCustomChannel(endpoints[static_cast<size_t>(i) % endpoints.size()],
                                    grpc::InsecureChannelCredentials(), args)));
    }
  }

  grpc::GenericStub& At(size_t client) { return *stubs_[client % stubs_.size()]; }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
};

template <typename Message>
grpc::ByteBuffer ToBuffer(const Message& message) {
  const std::string text = message.SerializeAsString();
  grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

template <typename Message>
bool FromBuffer(const grpc::ByteBuffer& buffer, Message* message) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return false;
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return message->ParseFromString(text);
}

}  // namespace conclave::bench
