// Http2Client: one connection of the load to a server, with any number of unary gRPC calls on it.
//
// Thread: one. The owner polls the descriptor, calls OnReady, and calls Flush once after a batch of
// starts.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace conclave::bench {

// A call's slot: lives until it has ended, and can be used again then.
struct UnaryCall {
  std::string request;  // with gRPC's five bytes in front
  size_t sent = 0;
  int status = -1;  // grpc-status; -1: none came
  std::string message;
  uint64_t received_bytes = 0;
};

class Http2Client {
 public:
  // Null, with a reason, if the connection cannot be made.
  static std::unique_ptr<Http2Client> Connect(const std::string& endpoint, std::string* error);
  ~Http2Client();
  Http2Client(const Http2Client&) = delete;
  Http2Client& operator=(const Http2Client&) = delete;

  int fd() const { return fd_; }
  // Called for each call that has ended, during OnReady.
  std::function<void(UnaryCall*)> on_end;

  void Start(const std::string& method, std::string_view message, UnaryCall* call);
  // Both give false when the connection is broken.
  [[nodiscard]] bool OnReady();
  [[nodiscard]] bool Flush();
  // What Flush could not write waits for the socket.
  bool wants_write() const { return sent_ < out_.size(); }

 private:
  Http2Client(int fd, std::string authority);
  static ssize_t ReadRequest(nghttp2_session* session, int32_t stream, uint8_t* buffer, size_t size,
                             uint32_t* flags, nghttp2_data_source* source, void* user);
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t flags,
                      void* user);
  static int OnData(nghttp2_session* session, uint8_t flags, int32_t stream, const uint8_t* data,
                    size_t size, void* user);
  static int OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t code, void* user);

  const int fd_;
  const std::string authority_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  size_t sent_ = 0;
};

}  // namespace conclave::bench
