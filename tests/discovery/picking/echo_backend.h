// EchoBackend: a real gRPC server of Echo in this process, which can be told to fail and to hang.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/picking/echo.grpc.pb.h"

namespace conclave::testing {

class EchoBackend final : public Echo::Service {
 public:
  // `listen` "127.0.0.1:0" takes a free port.
  explicit EchoBackend(const std::string& listen = "127.0.0.1:0", bool health = false) {
    grpc::EnableDefaultHealthCheckService(health);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    grpc::EnableDefaultHealthCheckService(false);
    address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
  }
  ~EchoBackend() override { Stop(); }

  const std::string& address() const { return address_; }
  int calls() const { return calls_; }
  // The connections that calls have come by.
  size_t connections() const {
    std::lock_guard lock(mutex_);
    return peers_.size();
  }
  // Calls end with this from now on.
  void EndWith(grpc::StatusCode code) { code_ = code; }
  void SetHealthy(bool healthy) { server_->GetHealthCheckService()->SetServingStatus(healthy); }

  void Stop(absl::Duration grace = absl::Seconds(5)) {
    if (server_ == nullptr) return;
    stopping_.Notify();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    server_.reset();
  }

 private:
  grpc::Status Begin(const grpc::ServerContext* context) {
    ++calls_;
    {
      std::lock_guard lock(mutex_);
      peers_.insert(context->peer());
    }
    const grpc::StatusCode code = code_;
    if (code == grpc::StatusCode::OK) return grpc::Status::OK;
    return {code, "as it was told to"};
  }
  EchoReply Reply(const std::string& text) const {
    EchoReply reply;
    reply.set_text(text);
    reply.set_backend(address_);
    return reply;
  }
  void Pause(int ms) {
    if (ms > 0) stopping_.WaitForNotificationWithTimeout(absl::Milliseconds(ms));
  }

  grpc::Status Unary(grpc::ServerContext* context, const EchoRequest* request,
                     EchoReply* reply) override {
    const grpc::Status status = Begin(context);
    Pause(request->pause_ms());
    *reply = Reply(request->text());
    return status;
  }
  grpc::Status Collect(grpc::ServerContext* context, grpc::ServerReader<EchoRequest>* reader,
                       EchoReply* reply) override {
    const grpc::Status status = Begin(context);
    *reply = Reply("");
    EchoRequest request;
    while (reader->Read(&request)) reply->set_count(reply->count() + 1);
    return status;
  }
  grpc::Status Repeat(grpc::ServerContext* context, const EchoRequest* request,
                      grpc::ServerWriter<EchoReply>* writer) override {
    const grpc::Status status = Begin(context);
    for (int i = 0; i < request->count() && !context->IsCancelled(); ++i) {
      Pause(request->pause_ms());
      if (!writer->Write(Reply(request->text()))) break;
    }
    return status;
  }
  grpc::Status Chat(grpc::ServerContext* context,
                    grpc::ServerReaderWriter<EchoReply, EchoRequest>* stream) override {
    const grpc::Status status = Begin(context);
    EchoRequest request;
    while (stream->Read(&request)) {
      Pause(request.pause_ms());
      if (!stream->Write(Reply(request.text()))) break;
    }
    return status;
  }

  std::string address_;
  std::atomic<int> calls_ = 0;
  std::atomic<grpc::StatusCode> code_ = grpc::StatusCode::OK;
  mutable std::mutex mutex_;
  std::set<std::string> peers_;
  absl::Notification stopping_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace conclave::testing
