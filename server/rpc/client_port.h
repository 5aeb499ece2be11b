// ClientPort: the gRPC server behind the client port. It owns no socket: connections are handed to it.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/rpc/reject_calls.h"
#include "conclave/server/rpc/stream_calls.h"
#include "conclave/server/rpc/transport.h"
#include "conclave/server/rpc/unary_calls.h"

namespace conclave::rpc {

class ClientPort {
 public:
  // Makes the server and one completion queue for each queue thread, which the caller takes over.
  ClientPort(const TransportOptions& options,
             std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>* queues);
  ~ClientPort();

  // Posts the first calls; the queues' threads do not run yet.
  void PostFirst(const std::vector<std::unique_ptr<Queue>>& queues);

  // Any thread.
  void HandOver(int fd);

  // On the thread of `queue`.
  void WatchOldCalls(int queue, Instant now);
  void EndAllStopped(int queue);

  // Not on a queue thread; returns when no connection is left.
  void ShutDown(Duration grace);

 private:
  class Service;
  struct PerQueue;

  const bool handling_histograms_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::AsyncGenericService> catch_all_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::unique_ptr<PerQueue>> per_queue_;
};

}  // namespace conclave::rpc
