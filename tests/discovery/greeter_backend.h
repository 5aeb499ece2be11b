// GreeterBackend: a real gRPC server of the examples' Greeter, in this process.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "conclave/examples/greeter.grpc.pb.h"

namespace conclave::testing {

class GreeterBackend final : public examples::Greeter::Service {
 public:
  // `address` "127.0.0.1:0" takes a free port.
  explicit GreeterBackend(const std::string& listen = "127.0.0.1:0") {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
  }
  ~GreeterBackend() override { Stop(); }

  const std::string& address() const { return address_; }
  int calls() const { return calls_; }
  bool running() const { return server_ != nullptr; }

  // Ends like a good server: calls under way are finished.
  void Stop(absl::Duration grace = absl::Seconds(5)) {
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    server_.reset();
  }

 private:
  grpc::Status Greet(grpc::ServerContext*, const examples::GreetRequest* request,
                     examples::GreetReply* reply) override {
    ++calls_;
    reply->set_message("hello " + request->name());
    reply->set_backend(address_);
    return grpc::Status::OK;
  }

  grpc::Status GreetMany(grpc::ServerContext* context, const examples::GreetManyRequest* request,
                         grpc::ServerWriter<examples::GreetReply>* writer) override {
    ++calls_;
    examples::GreetReply reply;
    reply.set_message("hello " + request->name());
    reply.set_backend(address_);
    absl::Notification never;  // paces the stream
    for (int i = 0; i < request->count() && !context->IsCancelled(); ++i) {
      if (i > 0) never.WaitForNotificationWithTimeout(absl::Milliseconds(request->interval_ms()));
      if (!writer->Write(reply)) break;
    }
    return grpc::Status::OK;
  }

  std::string address_;
  std::atomic<int> calls_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace conclave::testing
