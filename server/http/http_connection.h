// HttpConnection: one HTTP/1.1 connection: requests one after the other, each answered by a page or
// by a call of the gateway.
//
// While an answer is awaited, the socket is read ahead a little: so a client that goes is noticed,
// and the call in its name ends. A client that closes its sending side counts as gone.
//
// Thread: the HTTP side's. Limits: kHeaderBytesMax of headers; a whole request within
// kRequestTimeout, with a body within kBodyTimeout, except a stream's, which may go on; a client
// that takes nothing for kStallTimeout is disconnected.
#pragma once

#include <array>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "conclave/server/http/access_policy.h"
#include "conclave/server/http/backend.h"
#include "conclave/server/http/gateway.h"
#include "conclave/server/http/http_stream.h"
#include "conclave/server/http/pages.h"
#include "conclave/server/http/routing.h"

namespace conclave::http {

inline constexpr auto kRequestTimeout = std::chrono::seconds(10);
inline constexpr auto kBodyTimeout = std::chrono::seconds(60);
inline constexpr auto kStallTimeout = std::chrono::seconds(60);
inline constexpr auto kIdleTimeout = std::chrono::seconds(60);
// For a client that still sends when it has been answered.
inline constexpr auto kDrainTimeout = std::chrono::seconds(2);
inline constexpr size_t kDrainBytesMax = 8u << 20;
inline constexpr size_t kHeaderBytesMax = 16 * 1024;
inline constexpr size_t kBodyPieceBytes = 64 * 1024;
inline constexpr size_t kReadAheadBytes = 4 * 1024;

class HttpConnection;
class WebSocket;

// What the connections of one front door share.
struct HttpShared {
  GatewayShared gateway;
  AccessPolicy access;
  std::set<std::shared_ptr<HttpConnection>> open;
  std::set<std::shared_ptr<WebSocket>> open_web_sockets;
};

class HttpConnection final : public std::enable_shared_from_this<HttpConnection>,
                             private GatewayCall::Client {
 public:
  using Stream = HttpStream;

  HttpConnection(Stream stream, Serves serves, HttpShared* shared, std::shared_ptr<void> slot);

  void Start();
  // The object goes when its last operation has ended.
  void Close();

 private:
  using Clock = std::chrono::steady_clock;
  using Parser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  struct Outgoing {
    std::string bytes;
    std::function<void()> then;
  };
  // Closes the connection unless disarmed in time.
  class Deadline {
   public:
    explicit Deadline(HttpConnection* owner);
    void Arm(std::chrono::seconds timeout);
    void Disarm();

   private:
    HttpConnection* const owner_;
    boost::asio::steady_timer timer_;
    bool armed_ = false;
  };

  void ReadHeader(std::chrono::seconds timeout);
  void OnHeader(boost::system::error_code error);
  void OnRequest();
  void OpenPage(Request wanted);
  void OpenCall(GatewayTarget target);
  void Upgrade(GatewayTarget target);
  void ReadBody();
  void ReadAhead();
  void NextRequest();
  void Drain();
  void Respond(Response response) override;
  void WantBody() override { ReadBody(); }
  void WriteChunk(std::string chunk) override;
  void EndChunks() override;
  std::string Head(int status, const Fields& fields) const;
  void Write(std::string bytes, std::function<void()> then);
  void WriteOn();
  void OnAnswered();

  Stream stream_;
  const Serves serves_;
  HttpShared* const shared_;
  const std::shared_ptr<void> slot_;
  Deadline read_deadline_;
  Deadline write_deadline_;
  boost::beast::flat_buffer buffer_{kHeaderBytesMax + kBodyPieceBytes};
  std::optional<Parser> parser_;
  std::unique_ptr<std::array<char, kBodyPieceBytes>> piece_;  // while a body is read
  std::shared_ptr<GatewayCall> call_;
  Fields cors_;  // of the answer
  bool is_head_ = false;
  bool keep_alive_ = false;
  bool chunked_ = false;
  bool head_sent_ = false;  // of an answer in chunks
  bool reading_ahead_ = false;
  bool next_wanted_ = false;  // when what is read ahead has come
  bool draining_ = false;     // answered, and the connection ends
  bool closed_ = false;
  size_t drained_ = 0;
  std::deque<Outgoing> out_;
  size_t out_offset_ = 0;
};

}  // namespace conclave::http
