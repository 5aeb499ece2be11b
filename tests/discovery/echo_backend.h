// EchoBackend: a real gRPC server of the Echo service, in this process.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/picking/echo.grpc.pb.h"

namespace conclave::testing {

class EchoBackend final : public Echo::Service {
 public:
  // `address` "127.0.0.1:0" takes a free port.
  explicit EchoBackend(const std::string& listen = "127.0.0.1:0") {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
  }
  ~EchoBackend() override { Stop(); }

  const std::string& address() const { return address_; }
  bool running() const { return server_ != nullptr; }
  int calls() const { return calls_; }
  // Every unary call fails from now on, or no longer.
  void Fail(bool fail) { fail_ = fail; }

  // Ends like a good server: calls under way are finished.
  void Stop(absl::Duration grace = absl::Seconds(5)) {
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    server_.reset();
  }

 private:
  EchoReply Reply(const std::string& text) const {
    EchoReply reply;
    reply.set_text(text);
    reply.set_backend(address_);
    return reply;
  }
  grpc::Status Unary(grpc::ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    ++calls_;
    if (fail_) return grpc::Status(grpc::StatusCode::INTERNAL, "this backend is sick");
    *reply = Reply(request->text());
    return grpc::Status::OK;
  }
  grpc::Status Collect(grpc::ServerContext*, grpc::ServerReader<EchoRequest>* reader,
                       EchoReply* reply) override {
    ++calls_;
    std::string all;
    EchoRequest request;
    while (reader->Read(&request)) all += request.text();
    *reply = Reply(all);
    return grpc::Status::OK;
  }
  grpc::Status Repeat(grpc::ServerContext*, const EchoRequest* request,
                      grpc::ServerWriter<EchoReply>* writer) override {
    ++calls_;
    absl::Notification never;  // paces the stream
    for (int i = 0; i < request->count(); ++i) {
      if (i > 0) never.WaitForNotificationWithTimeout(absl::Milliseconds(request->pause_ms()));
      if (!writer->Write(Reply(request->text()))) break;
    }
    return grpc::Status::OK;
  }
  grpc::Status Chat(grpc::ServerContext*,
                    grpc::ServerReaderWriter<EchoReply, EchoRequest>* stream) override {
    ++calls_;
    EchoRequest request;
    while (stream->Read(&request)) stream->Write(Reply(request.text()));
    return grpc::Status::OK;
  }

  std::string address_;
  std::atomic<int> calls_ = 0;
  std::atomic<bool> fail_ = false;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace conclave::testing
