#include "conclave/server/http/web_socket.h"

#include <boost/asio/post.hpp>
#include <boost/beast/websocket.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "conclave/server/http/http_connection.h"

namespace conclave::http {

// What Beast asks of a stream that is none of its own, beside reading and writing.
void beast_close_socket(HttpStream& stream) {
  HttpStream::error_code ignored;
  stream.close(ignored);
}
void teardown(boost::beast::role_type, HttpStream& stream, HttpStream::error_code& error) {
  stream.shutdown(HttpStream::Socket::shutdown_send, error);
}
template <typename Handler>
void async_teardown(boost::beast::role_type, HttpStream& stream, Handler&& handler) {
  HttpStream::error_code error;
  stream.shutdown(HttpStream::Socket::shutdown_send, error);
  boost::asio::post(stream.get_executor(), [handler = std::forward<Handler>(handler),
                                            error]() mutable { handler(error); });
}

namespace {

namespace beast_http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

constexpr std::string_view kBearer = "Bearer";

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

struct WebSocket::Channel {
  explicit Channel(HttpStream stream) : socket(std::move(stream)) {}
  websocket::stream<HttpStream> socket;
};

std::string WebSocket::TokenOf(const Upgrade& request) {
  const std::string_view offered = View(request[beast_http::field::sec_websocket_protocol]);
  const size_t comma = offered.find(',');
  if (comma == std::string_view::npos || offered.substr(0, comma) != kBearer) return {};
  return std::string(absl::StripAsciiWhitespace(std::string(offered.substr(comma + 1))));
}

WebSocket::WebSocket(HttpStream stream, HttpShared* shared, std::shared_ptr<void> slot)
    : channel_(std::make_unique<Channel>(std::move(stream))),
      shared_(shared),
      slot_(std::move(slot)) {}

WebSocket::~WebSocket() = default;

void WebSocket::Start(Upgrade request, const GatewayMethod* method, GatewayCall::Metadata metadata,
                      std::optional<Duration> timeout) {
  shared_->open_web_sockets.insert(shared_from_this());
  auto& socket = channel_->socket;
  socket.set_option(websocket::stream_base::timeout{kUpgradeTimeout, kSilenceMax,
                                                    /*keep_alive_pings=*/true});
  socket.read_message_max(shared_->gateway.message_bytes_max);
  socket.text(true);
  if (!TokenOf(request).empty()) {
    socket.set_option(websocket::stream_base::decorator([](websocket::response_type& response) {
      response.set(beast_http::field::sec_websocket_protocol,
                   boost::beast::string_view(kBearer.data(), kBearer.size()));
    }));
  }
  const auto kept = std::make_shared<Upgrade>(std::move(request));
  socket.async_accept(*kept, [self = shared_from_this(), kept, method,
                              metadata = std::move(metadata), timeout](error_code error) mutable {
    if (self->closed_) return;
    if (error) return self->Close();
    self->OnAccepted(method, std::move(metadata), timeout);
  });
}

void WebSocket::OnAccepted(const GatewayMethod* method, GatewayCall::Metadata metadata,
                           std::optional<Duration> timeout) {
  GatewayCall::Client* const client = this;
  call_ = std::make_shared<GatewayCall>(&shared_->gateway, method, std::move(metadata), timeout,
                                        client);
  const std::shared_ptr<GatewayCall> call = call_;
  call->Begin();
}

void WebSocket::Close() {
  if (std::exchange(closed_, true)) return;
  const std::shared_ptr<WebSocket> self = shared_from_this();
  beast_close_socket(channel_->socket.next_layer());
  if (call_ != nullptr) std::exchange(call_, nullptr)->Abandon();
  shared_->open_web_sockets.erase(self);
}

// The client's next message; its closing is its going.
void WebSocket::WantBody() {
  channel_->socket.async_read(
      read_, [self = shared_from_this()](error_code error, size_t /*bytes*/) {
        if (self->closed_) return;
        if (error) return self->Close();
        const std::shared_ptr<GatewayCall> call = self->call_;
        const auto data = self->read_.data();
        const std::string message =
            absl::StrCat(std::string(static_cast<const char*>(data.data()), data.size()), "\n");
        self->read_.clear();
        if (call != nullptr) call->OnBody(message);
      });
}

void WebSocket::Respond(Response response) {
  Write(std::move(response.body));
  EndChunks();
}

void WebSocket::WriteChunk(std::string chunk) { Write(std::move(chunk)); }

void WebSocket::EndChunks() {
  call_.reset();
  over_ = true;
  if (out_.empty()) WriteOn();
}

void WebSocket::Write(std::string message) {
  while (message.ends_with('\n')) message.pop_back();
  out_.push_back(std::move(message));
  if (out_.size() == 1) WriteOn();
}

void WebSocket::WriteOn() {
  if (out_.empty()) {
    return channel_->socket.async_close(
        websocket::close_code::normal,
        [self = shared_from_this()](error_code /*error*/) { self->Close(); });
  }
  channel_->socket.async_write(boost::asio::buffer(out_.front()),
                               [self = shared_from_this()](error_code error, size_t /*bytes*/) {
                                 if (self->closed_) return;
                                 if (error) return self->Close();
                                 self->out_.pop_front();
                                 if (!self->out_.empty() || self->over_) return self->WriteOn();
                                 if (const std::shared_ptr<GatewayCall> call = self->call_)
                                   call->OnWritten();
                               });
}

}  // namespace conclave::http
