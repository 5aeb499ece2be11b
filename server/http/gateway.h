// The JSON gateway: gRPC's calls for clients that speak HTTP/1.1 and JSON.
//
//   HttpConnection --body--> GatewayCall --protobuf--> local::Call --HTTP/2--> the server's own
//   port
//                  <-JSON---             <-protobuf---
//
// A call becomes the gRPC call that it stands for, over the server's connection to itself
// (local_channel.h), with the caller's token: whatever holds for gRPC clients holds here. Streams
// are a line of JSON per message. A request's body may go on while answers come; its end only ends
// the requests.
//
// Flow: the next piece of the body is read when the messages before it have left, and the next
// answer when the one before has been written to the socket. So a slow client holds one message of
// its own.
//
// Thread: the HTTP side's. JSON of more than kInlineBytesMax is converted on a thread of its own,
// one message after the other. Limits: a message, and a unary call's whole body, is bounded by
// GatewayLimits; all calls together hold kHeldBytesMax, beyond which they are told
// `too many requests`.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/server/http/backend.h"
#include "conclave/server/http/json_codec.h"
#include "conclave/server/http/pages.h"
#include "conclave/server/local/local_channel.h"

namespace conclave::http {

inline constexpr size_t kInlineBytesMax = 32 * 1024;
inline constexpr size_t kHeldBytesMax = 512u << 20;

// What the calls of one front door share.
struct GatewayShared {
  boost::asio::io_context* context = nullptr;
  boost::asio::thread_pool* converter = nullptr;
  Backend* backend = nullptr;
  size_t message_bytes_max = 0;  // of JSON
  size_t held_bytes = 0;         // of all calls
};

class GatewayCall final : public local::Listener, public std::enable_shared_from_this<GatewayCall> {
 public:
  // Who speaks to the HTTP client. Called on the HTTP side's thread, also from within the calls
  // below.
  class Client {
   public:
    virtual ~Client() = default;
    // Read on: OnBody or OnBodyEnd follows.
    virtual void WantBody() = 0;
    // The whole answer; the last call.
    virtual void Respond(Response response) = 0;
    // A part of an answer of many parts, which is OK so far; OnWritten follows.
    virtual void WriteChunk(std::string chunk) = 0;
    // Such an answer is over; the last call.
    virtual void EndChunks() = 0;
  };

  using Metadata = std::vector<std::pair<std::string, std::string>>;

  GatewayCall(GatewayShared* shared, const GatewayMethod* method, Metadata metadata,
              std::optional<Duration> timeout, Client* client);
  ~GatewayCall() override;

  void Begin() { client_->WantBody(); }
  void OnBody(std::string_view piece);
  void OnBodyEnd();
  void OnWritten();
  // The HTTP client has gone, and with it `client`.
  void Abandon();

  // local::Listener
  void OnSent() override;
  void OnMessage(std::string message) override;
  void OnDone(int code, std::string text) override;

 private:
  template <typename Work>
  void OnHttpThread(Work work);
  template <typename Convert, typename Then>
  void Converted(size_t bytes, Convert convert, Then then);
  bool is_streaming() const { return method_->server_streams; }
  void Open();
  void SendNext();
  void SendMessage(std::string message);
  void Answered(absl::StatusOr<std::string> json);
  void Fail(const absl::Status& status);
  void End(int code, const std::string& text);
  void Hold(size_t bytes);
  void Finish();

  GatewayShared* const shared_;
  const GatewayMethod* const method_;
  Metadata metadata_;
  const std::optional<Duration> timeout_;
  Client* client_;  // null: gone, or told its last
  std::shared_ptr<local::Call> call_;
  JsonSplitter body_;
  size_t held_ = 0;          // counted in shared_->held_bytes
  absl::Status body_error_;  // of a stream of requests, behind some that are answered
  bool body_ended_ = false;
  bool sent_one_ = false;
  bool sending_ = false;
  bool wrote_chunk_ = false;
  std::string answer_;  // of a unary call
};

// The HTTP status of gRPC's code, as the gateway maps it.
int HttpStatusOf(int code);
// The body of an error, in the shapes of the old and the new gateway at once.
std::string ErrorBody(int code, std::string_view text);

}  // namespace conclave::http
