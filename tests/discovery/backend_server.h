// BackendServer: a gRPC server with one service, in this process: what the backends of the tests
// have in common.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace conclave::testing {

class BackendServer {
 public:
  // `listen` "127.0.0.1:0" takes a free port. Calls come as soon as this returns: the service must
  // be ready for them.
  BackendServer(const std::string& listen, grpc::Service* service) : address_(listen) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    // Of a port that was free nobody knows yet; of another one there may be calls already.
    if (listen.ends_with(":0")) address_.replace(address_.size() - 1, 1, std::to_string(port));
  }

  const std::string& address() const { return address_; }
  bool running() const { return server_ != nullptr; }
  grpc::Server& server() { return *server_; }

  // Ends like a good server: calls under way are finished.
  void Stop(absl::Duration grace) {
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    server_.reset();
  }

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace conclave::testing
