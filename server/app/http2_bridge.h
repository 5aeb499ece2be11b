// Http2Bridge: between the transport, which has the connections of clients that speak HTTP/2, and
// the front door, which has the pages and the gateway.
#pragma once

#include <utility>

#include "conclave/server/http/front_door.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::app {

class Http2Bridge : public rpc::HttpDoor {
 public:
  // Before the first connection is handed over.
  void Open(http::Http2Desk* desk) { desk_ = desk; }

  void Begin(rpc::HttpDoor::Request request) override {
    desk_->Begin({request.id, std::move(request.method), std::move(request.target),
                  std::move(request.authority), std::move(request.fields), request.is_tls,
                  static_cast<http::Serves>(request.port)});
  }
  bool Body(node::CallId id, Bytes piece, bool is_last) override {
    return desk_->Body(id, std::move(piece), is_last);
  }
  void Cancel(node::CallId id) override { desk_->Cancel(id); }
  void Sent(node::CallId id, uint64_t bytes) override { desk_->Sent(id, bytes); }

 private:
  http::Http2Desk* desk_ = nullptr;
};

inline rpc::Accepted AcceptedOf(http::Handed* handed) {
  rpc::Accepted accepted;
  accepted.fd = handed->fd;
  accepted.tls = std::move(handed->tls);
  accepted.slot = std::move(handed->slot);
  accepted.takes_grpc = http::ServesGrpc(handed->serves);
  if (http::ServesHttp(handed->serves)) accepted.http_port = static_cast<int>(handed->serves);
  return accepted;
}

inline http::Http2Answers AnswersTo(rpc::Transport* transport) {
  return {.head =
              [transport](http::Http2Head head) {
                transport->Answer(rpc::HttpHead{head.id, head.status, std::move(head.fields)});
              },
          .body = [transport](node::StreamEffect effect) { transport->Answer(std::move(effect)); }};
}

}  // namespace conclave::app
