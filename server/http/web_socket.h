// WebSocket: a call of the gateway over a WebSocket (RFC 6455), which etcd's gateway takes on every
// path: each message of the client's is one request in JSON, each answer is one message. It is for
// pages in a browser, which cannot send a request's body while they read the answer.
//
// The client closes to end the call; the server closes when the call has ended. A page cannot set
// headers, so a token comes as the subprotocol "Bearer, TOKEN".
//
// Thread: the HTTP side's. Limits: the upgrade within kUpgradeTimeout; a message of the size that
// the gateway takes; a client that does not answer pings for kSilenceMax, or takes nothing for so
// long, is disconnected.
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "conclave/base/time.h"
#include "conclave/server/http/gateway.h"
#include "conclave/server/http/http_stream.h"

namespace conclave::http {

inline constexpr auto kUpgradeTimeout = std::chrono::seconds(10);
inline constexpr auto kSilenceMax = std::chrono::seconds(60);

struct HttpShared;

class WebSocket final : public std::enable_shared_from_this<WebSocket>,
                        private GatewayCall::Client {
 public:
  using Upgrade = boost::beast::http::request<boost::beast::http::empty_body>;

  // What it offers as a subprotocol; "" if it offers none.
  static std::string TokenOf(const Upgrade& request);

  WebSocket(HttpStream stream, HttpShared* shared, std::shared_ptr<void> slot);
  ~WebSocket() override;

  void Start(Upgrade request, const GatewayMethod* method, GatewayCall::Metadata metadata,
             std::optional<Duration> timeout);
  // The object goes when its last operation has ended.
  void Close();

 private:
  void OnAccepted(const GatewayMethod* method, GatewayCall::Metadata metadata,
                  std::optional<Duration> timeout);
  void WantBody() override;
  void Respond(Response response) override;
  void WriteChunk(std::string chunk) override;
  void EndChunks() override;
  void Write(std::string message);
  void WriteOn();

  // Keeps Beast's templates out of here.
  struct Channel;
  const std::unique_ptr<Channel> channel_;
  HttpShared* const shared_;
  const std::shared_ptr<void> slot_;
  std::shared_ptr<GatewayCall> call_;
  boost::beast::flat_buffer read_;
  std::deque<std::string> out_;  // the first is on its way
  bool over_ = false;            // nothing follows that
  bool closed_ = false;
};

}  // namespace conclave::http
