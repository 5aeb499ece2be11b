// GreeterBackend: a real gRPC server of the examples' Greeter, in this process.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/tests/discovery/backend_server.h"

namespace conclave::testing {

class GreeterBackend final : public examples::Greeter::Service {
 public:
  // `listen` "127.0.0.1:0" takes a free port.
  explicit GreeterBackend(const std::string& listen = "127.0.0.1:0") : server_(listen, this) {}
  ~GreeterBackend() override { Stop(); }

  const std::string& address() const { return server_.address(); }
  int calls() const { return calls_; }
  bool running() const { return server_.running(); }

  // Ends like a good server: calls under way are finished.
  void Stop(absl::Duration grace = absl::Seconds(5)) { server_.Stop(grace); }

 private:
  grpc::Status Greet(grpc::ServerContext*, const examples::GreetRequest* request,
                     examples::GreetReply* reply) override {
    ++calls_;
    reply->set_message("hello " + request->name());
    reply->set_backend(address());
    return grpc::Status::OK;
  }

  grpc::Status GreetMany(grpc::ServerContext* context, const examples::GreetManyRequest* request,
                         grpc::ServerWriter<examples::GreetReply>* writer) override {
    ++calls_;
    examples::GreetReply reply;
    reply.set_message("hello " + request->name());
    reply.set_backend(address());
    absl::Notification never;  // paces the stream
    for (int i = 0; i < request->count() && !context->IsCancelled(); ++i) {
      if (i > 0) never.WaitForNotificationWithTimeout(absl::Milliseconds(request->interval_ms()));
      if (!writer->Write(reply)) break;
    }
    return grpc::Status::OK;
  }

  std::atomic<int> calls_ = 0;
  BackendServer server_;  // last: it calls all of the above
};

}  // namespace conclave::testing
