// Http2Connection: one TCP connection of a client that speaks HTTP/2, mostly gRPC. nghttp2 speaks
// HTTP/2; the socket, the flow of bytes and the manners (pings, limits, the farewell) are here.
//
// Reading: what the socket holds goes through nghttp2 into the calls, and from them to the core's
// inputs. Writing: only after the core's turn (OnFlush), so that everything a turn has to say to a
// client leaves in one system call. When the socket takes no more, nothing further is framed: a
// slow client's messages wait in its calls, where the core counts them.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/http2_call.h"
#include "conclave/server/rpc/http2_host.h"
#include "conclave/server/rpc/out_buffer.h"
#include "conclave/server/tls/stream.h"

namespace conclave::rpc {

// Framed bytes that wait for the socket; above it framing stops.
inline constexpr size_t kOutBytesMax = 256 * 1024;
inline constexpr int32_t kStreamWindowBytes = 2 * 1024 * 1024;
inline constexpr int32_t kConnectionWindowBytes = 16 * 1024 * 1024;
inline constexpr uint32_t kHeaderListBytesMax = 32 * 1024;
// Calls of one connection at the core, reset ones included: a client that opens and resets calls
// without end is sent away.
inline constexpr size_t kCallsOpenMax = 100'000;
// Replies of one connection that its client has not read; above it new calls are answered
// `etcdserver: too many requests`. Reading the socket cannot stop instead: the client's leave to
// send more comes through it.
inline constexpr size_t kUnreadBytesMax = 64u << 20;
// Pings that come too early, before the client is sent away. Each message of ours forgives them.
inline constexpr int kPingStrikesMax = 2;

class Http2Connection final : public EventLoop::Socket {
 public:
  // Takes the descriptor.
  Http2Connection(Http2Host* host, Accepted accepted);
  ~Http2Connection() override;

  // Once, when the host knows it.
  void Start();

  void OnReady(uint32_t events) override;
  void OnFlush() override;

  // Sends the headers of the response, its messages as they are queued, and the trailers when the
  // call is complete.
  void SubmitResponse(Http2Call* call);
  // More is queued for a response that has been submitted.
  void Resume(Http2Call* call);
  // HTTP errors of requests that nobody serves.
  void SubmitHttpError(Http2Call* call, const char* status);
  // Begins an answer of the HttpDoor's.
  void SubmitHttpHead(Http2Call* call, const HttpHead& head);
  void Reset(Http2Call* call, uint32_t code);

  void SayFarewell();
  // `material` is the number of the certificates that count now. True if the client's was judged by
  // them, which takes its time.
  bool Sweep(Instant now, uint64_t material, bool may_judge);
  // Closes the socket and ends all calls. The object is retired.
  void Close();

  // Whose it is, is known without a token: by a verified certificate, or because it is our own.
  bool is_somebody() const { return is_server_itself_ || !certificate_name().empty(); }
  bool takes_grpc() const { return takes_grpc_; }
  bool takes_http() const { return http_port_ != kNoHttp; }
  int http_port() const { return http_port_; }
  bool is_tls() const { return tls_ != nullptr; }
  // Common name of the client's verified certificate; empty without one.
  const std::string& certificate_name() const;

  void AddCall(Http2Call* call);
  void RemoveCall(Http2Call* call);
  const std::vector<Http2Call*>& calls() const { return calls_; }
  // Some of them have one.
  void ExpectDeadlines() { has_deadlines_ = true; }
  // Message bytes that wait in the connection's calls.
  void Queued(size_t bytes) { unread_bytes_ += bytes; }
  void Unqueued(size_t bytes) { unread_bytes_ -= bytes; }
  // What a call with this token shows; null if that is nothing. Calls share it, for a connection's
  // calls mostly have the same token. A part of this server shows that it is one.
  node::CredentialsRef CredentialsOf(const std::string& token);
  bool is_clogged() const { return unread_bytes_ > kUnreadBytesMax; }

  static void SetCallbacks(nghttp2_session_callbacks* callbacks);

 private:
  void Read();
  // As recv; `is_last` of this burst.
  ssize_t Receive(void* buffer, size_t size, bool is_last);
  OutBuffer::Result Send();
  void OnPing(Instant now);
  void CheckDeadlines(Instant now);

  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame*, void*);
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t,
                      const uint8_t*, size_t, uint8_t, void*);
  static int OnFrameRecv(nghttp2_session*, const nghttp2_frame*, void*);
  static int OnDataChunk(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int OnStreamClose(nghttp2_session*, int32_t, uint32_t, void*);
  static ssize_t OnSend(nghttp2_session*, const uint8_t*, size_t, int, void*);
  static int OnSendData(nghttp2_session*, nghttp2_frame*, const uint8_t*, size_t,
                        nghttp2_data_source*, void*);
  static ssize_t ReadResponse(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*,
                              nghttp2_data_source*, void*);

  Http2Host* const host_;
  const int fd_;
  const std::unique_ptr<tls::Stream> tls_;  // null: plain text
  const std::shared_ptr<void> slot_;
  const bool is_server_itself_;
  const bool takes_grpc_;
  const int http_port_;
  nghttp2_session* session_ = nullptr;
  OutBuffer out_;
  bool writable_wanted_ = false;
  bool closed_ = false;
  std::vector<Http2Call*> calls_;
  bool has_deadlines_ = false;
  size_t unread_bytes_ = 0;
  node::CredentialsRef credentials_;
  Instant credentials_dated_{};

  Instant last_read_{};
  Instant last_ping_{};
  uint64_t judged_by_ = 0;  // the certificates by which the client's was judged last
  Instant ping_sent_{};     // zero: none is under way
  int ping_strikes_ = 0;
};

}  // namespace conclave::rpc
