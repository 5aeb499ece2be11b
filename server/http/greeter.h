// Greeter: an accepted connection until it is known what its client speaks.
//
// Plain text: an HTTP/2 connection starts with "PRI * HTTP/2.0", no HTTP/1.1 request does. The
// first bytes are looked at without being taken (MSG_PEEK). TLS: a handshake record begins with a
// byte that is no letter; in the handshake both sides agree on the version of HTTP (ALPN), and who
// says nothing speaks HTTP/1.1. One port may serve both.
//
// Thread: the HTTP side's; handshakes happen there, and not on the core's thread. Limits: the
// client has kGreetingTimeout for its first bytes and its handshake together.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "conclave/server/http/http_stream.h"
#include "conclave/server/http/routing.h"
#include "conclave/server/tls/policy.h"
#include "conclave/server/tls/rejections.h"
#include "conclave/server/tls/stream.h"

namespace conclave::http {

inline constexpr auto kGreetingTimeout = std::chrono::seconds(5);

// A connection whose client speaks HTTP/2.
struct Handed {
  int fd = -1;                         // the taker's
  std::unique_ptr<tls::Stream> tls{};  // null: plain text
  std::shared_ptr<void> slot{};        // to be let go when the connection ends; any thread
  Serves serves = Serves::kAll;
};

// What a port takes, and where its clients go.
struct Welcome {
  bool plain = true;
  tls::Policy* tls = nullptr;  // null: no TLS
  Serves serves = Serves::kAll;
  std::function<void(HttpStream, std::shared_ptr<void> slot)> serve_http;
  std::function<void(Handed)> hand_over;
  tls::Rejections* rejections = nullptr;
};

class Greeter : public std::enable_shared_from_this<Greeter> {
 public:
  // `welcome` outlives the connection. `pending` is let go when the greeting is over.
  Greeter(boost::asio::ip::tcp::socket socket, const Welcome* welcome,
          std::shared_ptr<void> pending, std::shared_ptr<void> slot);

  void Start();

 private:
  using Socket = boost::asio::ip::tcp::socket;

  void Wait(Socket::wait_type what, void (Greeter::*then)());
  void Peek();
  void PeekAgain();
  void Handshake();
  void ServeHttp();
  void HandOver();
  void Reject(const std::string& error);
  void TimeOut();

  Socket socket_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer again_;
  const Welcome* const welcome_;
  const std::shared_ptr<void> pending_;
  std::shared_ptr<void> slot_;
  std::unique_ptr<tls::Stream> tls_;
};

}  // namespace conclave::http
