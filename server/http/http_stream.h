// HttpStream: a client's connection as asio and Beast read and write it, with TLS or without.
//
// Has the names of a socket, so that whoever speaks HTTP does not see which of both it is. Thread:
// the HTTP side's. It stays where it is while an operation is under way; Close ends those.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "conclave/server/tls/stream.h"

namespace conclave::http {

class HttpStream {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using executor_type = Socket::executor_type;
  using error_code = boost::system::error_code;

  // `tls` is over the socket's descriptor, after its handshake; null: plain text.
  explicit HttpStream(Socket socket, std::unique_ptr<tls::Stream> tls = nullptr)
      : socket_(std::move(socket)), tls_(std::move(tls)) {}

  executor_type get_executor() { return socket_.get_executor(); }
  bool is_open() const { return socket_.is_open(); }
  bool is_tls() const { return tls_ != nullptr; }

  void shutdown(Socket::shutdown_type what, error_code& error) {
    if (tls_ != nullptr && socket_.is_open()) tls_->Shutdown();
    socket_.shutdown(what, error);
  }
  void close(error_code& error) { socket_.close(error); }

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (tls_ == nullptr) return socket_.async_read_some(buffers, std::forward<Token>(token));
    return boost::asio::async_compose<Token, void(error_code, size_t)>(
        ReadStep{this, FirstOf<boost::asio::mutable_buffer>(buffers)}, token, socket_);
  }

  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (tls_ == nullptr) return socket_.async_write_some(buffers, std::forward<Token>(token));
    return boost::asio::async_compose<Token, void(error_code, size_t)>(
        WriteStep{this, FirstOf<boost::asio::const_buffer>(buffers)}, token, socket_);
  }

 private:
  // The first of them with something in it; empty if there is none.
  template <typename Buffer, typename Buffers>
  static Buffer FirstOf(const Buffers& buffers) {
    const auto end = boost::asio::buffer_sequence_end(buffers);
    for (auto at = boost::asio::buffer_sequence_begin(buffers); at != end; ++at) {
      if (Buffer buffer(*at); buffer.size() > 0) return buffer;
    }
    return {};
  }

  static error_code Closed() { return boost::asio::error::operation_aborted; }

  struct ReadStep {
    HttpStream* stream;
    boost::asio::mutable_buffer buffer;
    bool begun = false;

    template <typename Self>
    void operator()(Self& self, error_code error = {}) {
      if (!std::exchange(begun, true)) {
        // A handler does not run before the function that was given it has returned.
        if (stream->tls_->HasBuffered() || buffer.size() == 0) {
          return boost::asio::post(stream->get_executor(), std::move(self));
        }
        return stream->socket_.async_wait(Socket::wait_read, std::move(self));
      }
      if (error) return self.complete(error, 0);
      if (!stream->is_open()) return self.complete(Closed(), 0);
      if (buffer.size() == 0) return self.complete({}, 0);
      const ssize_t count = stream->tls_->Read(buffer.data(), buffer.size());
      if (count > 0) return self.complete({}, static_cast<size_t>(count));
      if (count == 0) return self.complete(boost::asio::error::eof, 0);
      if (errno != EAGAIN) return self.complete(boost::asio::error::connection_reset, 0);
      stream->socket_.async_wait(Socket::wait_read, std::move(self));
    }
  };

  struct WriteStep {
    HttpStream* stream;
    boost::asio::const_buffer buffer;
    bool begun = false;
    size_t taken = 0;

    template <typename Self>
    void operator()(Self& self, error_code error = {}) {
      if (!std::exchange(begun, true)) {
        return boost::asio::post(stream->get_executor(), std::move(self));
      }
      if (error) return self.complete(error, 0);
      if (!stream->is_open()) return self.complete(Closed(), 0);
      if (taken == 0) {
        const ssize_t count =
            stream->tls_->Write({static_cast<const char*>(buffer.data()), buffer.size()});
        if (count < 0) return self.complete(boost::asio::error::connection_reset, 0);
        taken = static_cast<size_t>(count);
      }
      switch (stream->tls_->Flush()) {
        case tls::Stream::Flushed::kAll:
          // Nothing was taken only if nothing was to be written: there is room after each flush.
          return self.complete({}, taken);
        case tls::Stream::Flushed::kBroken:
          return self.complete(boost::asio::error::connection_reset, 0);
        case tls::Stream::Flushed::kBlocked:
          return stream->socket_.async_wait(Socket::wait_write, std::move(self));
      }
    }
  };

  Socket socket_;
  std::unique_ptr<tls::Stream> tls_;
};

}  // namespace conclave::http
