#include "conclave/server/rpc/client_port.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/security/server_credentials.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::rpc {
namespace {

int Milliseconds(Duration duration) {
  const auto count = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  return static_cast<int>(std::clamp<int64_t>(count, 0, std::numeric_limits<int>::max()));
}

int ClampToInt(uint64_t value) {
  return static_cast<int>(std::min<uint64_t>(value, std::numeric_limits<int>::max()));
}

// What a connection may receive before somebody takes it from gRPC: enough for one request of the largest size.
constexpr int kLookaheadBytes = 2 * 1024 * 1024;

void SetArguments(const TransportOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(ClampToInt(options.receive_bytes_max));
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              ClampToInt(options.concurrent_streams_max));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              Milliseconds(options.keepalive_interval));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(options.keepalive_min_time));
  // etcd's server lets clients ping without a call open (PermitWithoutStream is off there, but its
  // clients ping only with streams open); the interval above holds for both.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A caller's deadline is the caller's: it cancels the call when it passes, and a timer per call here would only
  // do the same a second time.
  builder->AddChannelArgument(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0);
  builder->AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  // Replies are never compressed; requests may be.
  builder->AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
  // No pings to measure the bandwidth: each is a read and a write more. The window is wide instead.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
}

}  // namespace

// Registers the methods that are served. gRPC's tag of each method is what its calls are asked for with.
class ClientPort::Service : public grpc::Service {
 public:
  Service() {
    for (const MethodEntry& entry : AllMethods()) {
      if (entry.served == Served::kNotYet) {
        methods_.push_back(nullptr);
        continue;
      }
      const auto type = entry.type == CallType::kUnary ? grpc::internal::RpcMethod::NORMAL_RPC
                        : entry.type == CallType::kServerStream
                            ? grpc::internal::RpcMethod::SERVER_STREAMING
                            : grpc::internal::RpcMethod::BIDI_STREAMING;
      auto* method = new grpc::internal::RpcServiceMethod(entry.path, type, nullptr);
      AddMethod(method);  // takes it over
      methods_.push_back(method);
    }
  }
  void* tag(size_t method) const {
    return methods_[method] == nullptr ? nullptr : methods_[method]->server_tag();
  }

 private:
  std::vector<grpc::internal::RpcServiceMethod*> methods_;
};

struct ClientPort::PerQueue {
  CallHost host;
  std::vector<std::unique_ptr<UnaryMethod>> unary;
  std::vector<std::unique_ptr<StreamMethod>> streams;
  std::vector<std::unique_ptr<RejectCall>> rejects;
};

ClientPort::ClientPort(const TransportOptions& options,
                       std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>* queues)
    : handling_histograms_(options.handling_histograms),
      service_(std::make_unique<Service>()),
      catch_all_(std::make_unique<grpc::AsyncGenericService>()) {
  grpc::ServerBuilder builder;
  SetArguments(options, &builder);
  builder.RegisterService(service_.get());
  builder.RegisterAsyncGenericService(catch_all_.get());
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  for (int i = 0; i < options.queue_threads; ++i) {
    queues->push_back(builder.AddCompletionQueue());
  }
  server_ = builder.BuildAndStart();
  CONCLAVE_CHECK(server_ != nullptr, "gRPC server");
}

ClientPort::~ClientPort() = default;

void ClientPort::PostFirst(const std::vector<std::unique_ptr<Queue>>& queues) {
  const auto methods = AllMethods();
  for (const auto& queue : queues) {
    auto& state = *per_queue_.emplace_back(std::make_unique<PerQueue>());
    state.host = {queue.get(), server_->c_server(), handling_histograms_, false};
    for (size_t i = 0; i < methods.size(); ++i) {
      void* const tag = service_->tag(i);
      if (tag == nullptr) continue;
      if (methods[i].type == CallType::kUnary) {
        state.unary.push_back(std::make_unique<UnaryMethod>(&state.host, &methods[i], tag));
        state.unary.back()->PostFirst();
      } else {
        state.streams.push_back(std::make_unique<StreamMethod>(&state.host, &methods[i], tag));
        state.streams.back()->PostFirst();
      }
    }
    for (int i = 0; i < kPostedRejects; ++i) {
      state.rejects.push_back(std::make_unique<RejectCall>(&state.host));
      state.rejects.back()->Post();
    }
  }
}

void ClientPort::HandOver(int fd) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = fd;
  acceptor_->HandleNewConnection(&parameters);
}

void ClientPort::WatchOldCalls(int queue, Instant now) {
  for (const auto& method : per_queue_[static_cast<size_t>(queue)]->unary) {
    method->WatchOldCalls(now);
  }
}

void ClientPort::EndAllStopped(int queue) {
  PerQueue& state = *per_queue_[static_cast<size_t>(queue)];
  state.host.stopping = true;
  for (const auto& method : state.unary) method->AnswerAllStopped();
  for (const auto& method : state.streams) method->EndAllStopped();
}

void ClientPort::ShutDown(Duration grace) {
  server_->Shutdown(std::chrono::system_clock::now() + grace);
}

}  // namespace conclave::rpc
