#include "conclave/server/http/greeter.h"

#include <sys/socket.h>

#include <cerrno>
#include <string_view>
#include <utility>

namespace conclave::http {
namespace {

using boost::system::error_code;

constexpr std::string_view kHttp2Start = "PRI ";  // no HTTP/1.1 method
constexpr char kTlsHandshake = 0x16;              // the type of a TLS connection's first record
constexpr auto kPeekAgain = std::chrono::milliseconds(20);

Instant Now() { return Instant(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace

Greeter::Greeter(Socket socket, const Welcome* welcome, std::shared_ptr<void> pending,
                 std::shared_ptr<void> slot)
    : socket_(std::move(socket)),
      deadline_(socket_.get_executor(), kGreetingTimeout),
      again_(socket_.get_executor()),
      welcome_(welcome),
      pending_(std::move(pending)),
      slot_(std::move(slot)) {}

void Greeter::Start() {
  deadline_.async_wait([weak = weak_from_this()](error_code error) {
    if (error) return;
    if (auto self = weak.lock()) self->TimeOut();
  });
  Wait(Socket::wait_read, &Greeter::Peek);
}

void Greeter::TimeOut() {
  if (tls_ != nullptr) Reject("tls: handshake timed out");
  error_code ignored;
  again_.cancel(ignored);
  socket_.close(ignored);
}

void Greeter::Wait(Socket::wait_type what, void (Greeter::*then)()) {
  socket_.async_wait(what, [self = shared_from_this(), then](error_code error) {
    if (!error && self->socket_.is_open()) (self.get()->*then)();
  });
}

void Greeter::Peek() {
  char bytes[kHttp2Start.size()];
  const ssize_t got = recv(socket_.native_handle(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return Wait(Socket::wait_read, &Greeter::Peek);
  }
  if (got <= 0) return;  // gone
  const std::string_view seen(bytes, static_cast<size_t>(got));
  if (welcome_->tls != nullptr && seen.front() == kTlsHandshake) {
    const auto speaks = ServesHttp(welcome_->serves) ? tls::Speaks::kHttp : tls::Speaks::kHttp2;
    tls_ = welcome_->tls->Accept(socket_.native_handle(), speaks);
    return Handshake();
  }
  if (!welcome_->plain) return Reject("tls: first record does not look like a TLS handshake");
  if (seen != kHttp2Start.substr(0, seen.size())) return ServeHttp();
  if (seen.size() == kHttp2Start.size()) return HandOver();
  PeekAgain();
}

// The first bytes of a preface, but too few. They stay readable, so waiting for the socket would
// not wait.
void Greeter::PeekAgain() {
  again_.expires_after(kPeekAgain);
  again_.async_wait([self = shared_from_this()](error_code error) {
    if (!error && self->socket_.is_open()) self->Peek();
  });
}

void Greeter::Handshake() {
  switch (tls_->Handshake()) {
    case tls::Stream::Step::kWantRead:
      return Wait(Socket::wait_read, &Greeter::Handshake);
    case tls::Stream::Step::kWantWrite:
      return Wait(Socket::wait_write, &Greeter::Handshake);
    case tls::Stream::Step::kFailed:
      return Reject(tls_->error());
    case tls::Stream::Step::kDone:
      return tls_->protocol() == "h2" ? HandOver() : ServeHttp();
  }
}

void Greeter::ServeHttp() {
  deadline_.cancel();
  if (!ServesHttp(welcome_->serves)) return;  // closes it
  welcome_->serve_http(HttpStream(std::move(socket_), std::move(tls_)), std::move(slot_));
}

void Greeter::HandOver() {
  deadline_.cancel();
  error_code error;
  const int fd = socket_.release(error);
  if (error) return;
  welcome_->hand_over({fd, std::move(tls_), std::move(slot_), welcome_->serves});
}

void Greeter::Reject(const std::string& error) {
  welcome_->rejections->Add(Now(), tls::RemoteAddress(socket_.native_handle()),
                            tls_ == nullptr ? std::string() : tls_->server_name(), error);
}

}  // namespace conclave::http
