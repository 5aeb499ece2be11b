// Http2Host: the gRPC clients of one event loop: their connections, and the slots of their calls.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string_view>
#include <vector>

#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/http2_call.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::rpc {

// On its loop's thread.
class Http2Host {
 public:
  Http2Host(EventLoop* loop, const TransportOptions& options);
  ~Http2Host();
  Http2Host(const Http2Host&) = delete;
  Http2Host& operator=(const Http2Host&) = delete;

  // A connection whose client speaks HTTP/2. Takes the descriptor.
  void Adopt(Accepted accepted);
  void Forget(Http2Connection* connection);
  // Pings, connections that do not answer them, and clients whose certificates count no more.
  void Sweep();

  // To the watches of the server's health.
  void TellOfPause();

  // From now on every call is answered `etcdserver: server stopped`, the open ones first, and each
  // connection is told to go. The core must not answer any more.
  void BeginStop();
  void CloseAll();
  bool idle() const { return connections_.empty(); }

  Http2Call* TakeCall(Http2Connection* connection, int32_t stream);
  void ReturnCall(Http2Call* call);

  EventLoop& loop() { return *loop_; }
  const TransportOptions& options() const { return options_; }
  bool stopping() const { return stopping_; }
  const nghttp2_session_callbacks* callbacks() const { return callbacks_; }
  const nghttp2_option* option() const { return option_; }

 private:
  EventLoop* const loop_;
  const TransportOptions& options_;
  nghttp2_session_callbacks* callbacks_ = nullptr;
  nghttp2_option* option_ = nullptr;
  std::vector<std::unique_ptr<Http2Connection>> connections_;
  std::vector<std::unique_ptr<Http2Call>> calls_;
  std::vector<Http2Call*> free_;
  bool stopping_ = false;
};

}  // namespace conclave::rpc
