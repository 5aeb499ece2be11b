#include "conclave/server/http/http_connection.h"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/server/http/web_socket.h"

namespace conclave::http {
namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using boost::system::error_code;

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

HttpConnection::Deadline::Deadline(HttpConnection* owner)
    : owner_(owner), timer_(owner->stream_.get_executor()) {}

void HttpConnection::Deadline::Arm(std::chrono::seconds timeout) {
  armed_ = true;
  timer_.expires_after(timeout);
  timer_.async_wait([this, weak = owner_->weak_from_this()](error_code error) {
    if (error) return;
    const std::shared_ptr<HttpConnection> owner = weak.lock();
    // A wait that was about to end when it was armed anew or disarmed counts no more.
    if (owner != nullptr && armed_ && timer_.expiry() <= Clock::now()) owner->Close();
  });
}

void HttpConnection::Deadline::Disarm() {
  armed_ = false;
  timer_.cancel();
}

HttpConnection::HttpConnection(Stream stream, Serves serves, HttpShared* shared,
                               std::shared_ptr<void> slot)
    : stream_(std::move(stream)),
      serves_(serves),
      shared_(shared),
      slot_(std::move(slot)),
      read_deadline_(this),
      write_deadline_(this) {}

void HttpConnection::Start() {
  shared_->open.insert(shared_from_this());
  ReadHeader(kRequestTimeout);
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  read_deadline_.Disarm();
  write_deadline_.Disarm();
  error_code ignored;
  stream_.close(ignored);
  if (call_ != nullptr) std::exchange(call_, nullptr)->Abandon();
  shared_->open.erase(self);
}

// ---- The request
// -----------------------------------------------------------------------------------

void HttpConnection::ReadHeader(std::chrono::seconds timeout) {
  parser_.emplace();
  parser_->header_limit(kHeaderBytesMax);
  parser_->body_limit(UINT64_MAX);  // whoever reads the body counts
  keep_alive_ = chunked_ = head_sent_ = is_head_ = false;
  cors_.clear();
  read_deadline_.Arm(timeout);
  beast_http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](error_code error, size_t /*bytes*/) { self->OnHeader(error); });
}

void HttpConnection::OnHeader(error_code error) {
  read_deadline_.Disarm();
  if (closed_) return;
  if (error) {
    // A broken request is told so; a connection that broke off is not there to hear it.
    const bool broken =
        error != beast_http::error::end_of_stream && error != beast_http::error::partial_message &&
        error.category() == beast_http::make_error_code(beast_http::error::bad_method).category();
    if (!broken) return Close();
    const bool too_large = error == beast_http::error::header_limit;
    Response response;
    response.status = too_large ? 431 : 400;
    response.body = "400 Bad Request\n";
    return Respond(std::move(response));
  }
  keep_alive_ = parser_->get().keep_alive();
  is_head_ = parser_->get().method() == beast_http::verb::head;
  OnRequest();
}

void HttpConnection::OnRequest() {
  const auto& request = parser_->get();
  RequestHead head;
  head.method = View(request.method_string());
  head.target = View(request.target());
  head.host = View(request[beast_http::field::host]);
  head.is_tls = stream_.is_tls();
  head.field = [&request](std::string_view name) {
    return View(request[boost::beast::string_view(name.data(), name.size())]);
  };
  const bool is_upgrade = boost::beast::websocket::is_upgrade(request);
  Routed routed = Route(head, serves_, shared_->access, is_upgrade);
  cors_ = std::move(routed.cors);
  if (auto* response = std::get_if<Response>(&routed.to)) return Respond(std::move(*response));
  if (std::holds_alternative<PageTarget>(routed.to)) {
    return OpenPage({std::string(head.method), std::string(head.target)});
  }
  auto& target = std::get<GatewayTarget>(routed.to);
  is_upgrade ? Upgrade(std::move(target)) : OpenCall(std::move(target));
}

void HttpConnection::OpenPage(Request wanted) {
  ReadAhead();
  Answer(wanted, shared_->gateway.backend, [self = shared_from_this()](Response response) {
    asio::post(self->stream_.get_executor(), [self, response = std::move(response)]() mutable {
      if (!self->closed_) self->Respond(std::move(response));
    });
  });
}

void HttpConnection::OpenCall(GatewayTarget target) {
  const auto& request = parser_->get();
  GatewayCall::Client* const client = this;
  call_ = std::make_shared<GatewayCall>(&shared_->gateway, target.method,
                                        std::move(target.metadata), target.timeout, client);
  if (!target.method->client_streams) read_deadline_.Arm(kBodyTimeout);
  if (request[beast_http::field::expect] == "100-continue" && request.version() >= 11) {
    Write("HTTP/1.1 100 Continue\r\n\r\n", nullptr);
  }
  const std::shared_ptr<GatewayCall> call = call_;
  call->Begin();
}

// The connection becomes a WebSocket's.
void HttpConnection::Upgrade(GatewayTarget target) {
  constexpr int kPermissionDenied = 7;
  constexpr int kInvalidArgument = 3;
  const auto& request = parser_->get();
  // A browser asks nobody before it opens a WebSocket, so it is to be refused what CORS would
  // refuse.
  if (!request[beast_http::field::origin].empty() && cors_.empty()) {
    return Respond(GatewayError(403, kPermissionDenied, "the origin is none of --cors"));
  }
  WebSocket::Upgrade upgrade{request.base()};
  if (std::string token = WebSocket::TokenOf(upgrade); !token.empty()) {
    if (!IsPrintable(token)) {
      return Respond(GatewayError(400, kInvalidArgument, "the token is not printable"));
    }
    target.metadata.emplace_back("authorization", std::move(token));
  }
  if (buffer_.size() > 0) {
    return Respond(
        GatewayError(400, kInvalidArgument, "a WebSocket's client waits for the answer"));
  }
  closed_ = true;  // nothing of this object is under way
  read_deadline_.Disarm();
  const auto socket = std::make_shared<WebSocket>(std::move(stream_), shared_, slot_);
  shared_->open.erase(shared_from_this());
  socket->Start(std::move(upgrade), target.method, std::move(target.metadata), target.timeout);
}

void HttpConnection::ReadBody() {
  if (parser_->is_done()) {
    read_deadline_.Disarm();
    piece_.reset();
    ReadAhead();
    const std::shared_ptr<GatewayCall> call = call_;  // it may answer, and be forgotten
    return call->OnBodyEnd();
  }
  if (piece_ == nullptr) piece_ = std::make_unique<std::array<char, kBodyPieceBytes>>();
  auto& body = parser_->get().body();
  body.data = piece_->data();
  body.size = piece_->size();
  beast_http::async_read_some(
      stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t /*bytes*/) {
        if (self->closed_ || self->call_ == nullptr) return;
        if (error == beast_http::error::need_buffer) error = {};
        if (error) return self->Close();
        const size_t size = self->piece_->size() - self->parser_->get().body().size;
        if (size == 0) return self->ReadBody();
        const std::shared_ptr<GatewayCall> call = self->call_;
        call->OnBody({self->piece_->data(), size});
      });
}

// While the answer is awaited.
void HttpConnection::ReadAhead() {
  // Whoever has sent the next request already has not gone.
  if (reading_ahead_ || buffer_.size() > 0) return;
  reading_ahead_ = true;
  stream_.async_read_some(buffer_.prepare(kReadAheadBytes),
                          [self = shared_from_this()](error_code error, size_t bytes) {
                            self->reading_ahead_ = false;
                            if (self->closed_) return;
                            if (error) return self->Close();
                            if (self->draining_) return self->Drain();
                            self->buffer_.commit(bytes);
                            if (std::exchange(self->next_wanted_, false)) {
                              self->ReadHeader(kRequestTimeout);
                            }
                          });
}

// ---- The answer
// ------------------------------------------------------------------------------------

std::string HttpConnection::Head(int status, const Fields& fields) const {
  const auto reason =
      beast_http::obsolete_reason(beast_http::int_to_status(static_cast<unsigned>(status)));
  std::string head = absl::StrCat("HTTP/1.1 ", status, " ", std::string(View(reason)), "\r\n");
  for (const Fields* some : {&cors_, &fields}) {
    for (const auto& [name, value] : *some) absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  absl::StrAppend(&head, keep_alive_ ? "" : "Connection: close\r\n", "\r\n");
  return head;
}

void HttpConnection::Respond(Response response) {
  call_.reset();
  if (!parser_->is_done()) keep_alive_ = false;  // the rest of the request would be in the way
  std::string bytes = Head(response.status, FieldsOf(response));
  if (!is_head_) bytes += response.body;
  Write(std::move(bytes), [this] { OnAnswered(); });
}

void HttpConnection::WriteChunk(std::string chunk) {
  std::string bytes;
  if (!std::exchange(head_sent_, true)) {
    chunked_ = parser_->get().version() >= 11;
    if (!chunked_) keep_alive_ = false;
    Fields fields = StreamFields();
    if (chunked_) fields.emplace_back("Transfer-Encoding", "chunked");
    bytes = Head(200, fields);
  }
  if (chunked_) {
    absl::StrAppend(&bytes, absl::Hex(chunk.size()), "\r\n", chunk, "\r\n");
  } else {
    bytes += chunk;
  }
  Write(std::move(bytes), [this] {
    if (const std::shared_ptr<GatewayCall> call = call_) call->OnWritten();
  });
}

void HttpConnection::EndChunks() {
  if (!head_sent_) {
    Response response;
    response.content_type = "application/json";
    response.grpc = true;
    return Respond(std::move(response));
  }
  call_.reset();
  if (!parser_->is_done()) keep_alive_ = false;
  Write(chunked_ ? "0\r\n\r\n" : "", [this] { OnAnswered(); });
}

void HttpConnection::OnAnswered() {
  read_deadline_.Disarm();
  piece_.reset();
  if (keep_alive_) return NextRequest();
  error_code ignored;
  stream_.shutdown(Stream::Socket::shutdown_send, ignored);
  // What the client still sends is taken: closing on it would reset the connection, and the answer
  // might never arrive.
  draining_ = true;
  read_deadline_.Arm(kDrainTimeout);
  if (!reading_ahead_) Drain();
}

void HttpConnection::NextRequest() {
  if (!reading_ahead_) return ReadHeader(kIdleTimeout);
  next_wanted_ = true;
  read_deadline_.Arm(kIdleTimeout);
}

void HttpConnection::Drain() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kReadAheadBytes),
                          [self = shared_from_this()](error_code error, size_t bytes) {
                            if (self->closed_) return;
                            self->drained_ += bytes;
                            if (error || self->drained_ > kDrainBytesMax) return self->Close();
                            self->Drain();
                          });
}

void HttpConnection::Write(std::string bytes, std::function<void()> then) {
  out_.push_back({std::move(bytes), std::move(then)});
  if (out_.size() == 1) WriteOn();
}

void HttpConnection::WriteOn() {
  write_deadline_.Arm(kStallTimeout);
  const std::string& bytes = out_.front().bytes;
  stream_.async_write_some(asio::buffer(bytes.data() + out_offset_, bytes.size() - out_offset_),
                           [self = shared_from_this()](error_code error, size_t written) {
                             if (self->closed_) return;
                             if (error) return self->Close();
                             self->out_offset_ += written;
                             if (self->out_offset_ == self->out_.front().bytes.size()) {
                               const std::function<void()> then =
                                   std::move(self->out_.front().then);
                               self->out_.pop_front();
                               self->out_offset_ = 0;
                               self->write_deadline_.Disarm();
                               if (!self->out_.empty()) self->WriteOn();
                               if (then) then();
                               return;
                             }
                             self->WriteOn();
                           });
}

}  // namespace conclave::http
