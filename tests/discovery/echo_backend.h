// EchoBackend: a real gRPC server of the Echo service, in this process.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/backend_server.h"
#include "conclave/tests/discovery/picking/echo.grpc.pb.h"

namespace conclave::testing {

class EchoBackend final : public Echo::Service {
 public:
  // `listen` "127.0.0.1:0" takes a free port.
  explicit EchoBackend(const std::string& listen = "127.0.0.1:0") : server_(listen, this) {}
  ~EchoBackend() override { Stop(); }

  const std::string& address() const { return server_.address(); }
  bool running() const { return server_.running(); }
  int calls() const { return calls_; }
  // Every unary call fails from now on, or no longer.
  void Fail(bool fail) { fail_ = fail; }

  // Ends like a good server: calls under way are finished.
  void Stop(absl::Duration grace = absl::Seconds(5)) { server_.Stop(grace); }

 private:
  EchoReply Reply(const std::string& text) const {
    EchoReply reply;
    reply.set_text(text);
    reply.set_backend(address());
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

  std::atomic<int> calls_ = 0;
  std::atomic<bool> fail_ = false;
  BackendServer server_;  // last: it calls all of the above
};

}  // namespace conclave::testing
