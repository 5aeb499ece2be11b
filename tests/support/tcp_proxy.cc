#include "conclave/tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace conclave::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBufferedMax = 4 << 20;
constexpr size_t kReadBytes = 64 << 10;

struct Piece {
  Clock::time_point due;
  std::string bytes;
};

// One direction of a connection: from a socket, through the network, to the other socket.
struct Pipe {
  std::deque<Piece> pieces;
  size_t buffered = 0;
  bool source_ended = false;  // no more comes
  bool ended = false;         // and the sink was told so
};

struct Connection {
  int client = -1;
  int server = -1;
  bool connecting = true;
  bool broken = false;
  std::array<Pipe, 2> pipes;  // by Direction
};

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void CloseWithReset(int fd) {
  if (fd < 0) return;
  const linger hard{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close(fd);
}

}  // namespace

class TcpProxy::Impl {
 public:
  explicit Impl(int target) : target_(target) {}

  ~Impl() {
    Change([this] { ending_ = true; });
    if (thread_.joinable()) thread_.join();
    for (Connection& connection : connections_) Break(connection);
    if (listener_ >= 0) close(listener_);
    if (bell_ >= 0) close(bell_);
  }

  absl::Status Start() {
    bell_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 128) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      return absl::UnavailableError(absl::StrCat("no port for a proxy: ", strerror(errno)));
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  // Runs `change` with the lock held, and lets the thread see it.
  template <typename Work>
  void Change(Work change) {
    {
      std::lock_guard lock(mutex_);
      change();
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(bell_, &one, sizeof one);
  }

  void Break(Connection& connection) {
    CloseWithReset(std::exchange(connection.client, -1));
    CloseWithReset(std::exchange(connection.server, -1));
    connection.broken = true;
  }

  void Run();
  void Accept();
  void Pump(Connection& connection, Direction direction, Clock::time_point now);
  int Source(const Connection& c, Direction d) const {
    return d == Direction::kToServer ? c.client : c.server;
  }
  int Sink(const Connection& c, Direction d) const {
    return d == Direction::kToServer ? c.server : c.client;
  }

  const int target_;
  int port_ = 0;
  int listener_ = -1;
  int bell_ = -1;
  std::thread thread_;
  std::atomic<int> open_ = 0;
  std::atomic<int64_t> accepted_ = 0;

  std::mutex mutex_;  // guards all below; held by the thread but while it waits
  bool ending_ = false;
  bool cut_ = false;
  std::array<bool, 2> stalled_{};
  Clock::duration delay_{};
  std::deque<Connection> connections_;
};

void TcpProxy::Impl::Accept() {
  for (;;) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    if (cut_) {
      CloseWithReset(client);
      continue;
    }
    ++accepted_;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const sockaddr_in address = Loopback(target_);
    Connection connection{.client = client, .server = server};
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
        errno != EINPROGRESS) {
      Break(connection);
      continue;
    }
    connections_.push_back(std::move(connection));
  }
}

// Takes what the source has, gives the sink what is due.
void TcpProxy::Impl::Pump(Connection& c, Direction direction, Clock::time_point now) {
  Pipe& pipe = c.pipes[static_cast<size_t>(direction)];
  char buffer[kReadBytes];
  while (!c.broken && !pipe.source_ended && pipe.buffered < kBufferedMax) {
    const ssize_t got = recv(Source(c, direction), buffer, sizeof buffer, 0);
    if (got > 0) {
      pipe.pieces.push_back({now + delay_, std::string(buffer, static_cast<size_t>(got))});
      pipe.buffered += static_cast<size_t>(got);
    } else if (got == 0) {
      pipe.source_ended = true;
    } else {
      if (errno != EAGAIN) Break(c);
      break;
    }
  }
  if (pipe.ended) {  // nobody hears the rest
    pipe.pieces.clear();
    pipe.buffered = 0;
  }
  const bool stalled = stalled_[static_cast<size_t>(direction)];
  while (!c.broken && !stalled && !pipe.pieces.empty() && pipe.pieces.front().due <= now) {
    std::string& bytes = pipe.pieces.front().bytes;
    const ssize_t sent = send(Sink(c, direction), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN) Break(c);
      break;
    }
    pipe.buffered -= static_cast<size_t>(sent);
    bytes.erase(0, static_cast<size_t>(sent));
    if (bytes.empty()) pipe.pieces.pop_front();
  }
  if (!c.broken && pipe.source_ended && !pipe.ended && !stalled && pipe.pieces.empty()) {
    pipe.ended = true;
    shutdown(Sink(c, direction), SHUT_WR);
  }
}

void TcpProxy::Impl::Run() {
  std::vector<pollfd> polled;
  for (;;) {
    int wait_ms = -1;
    {
      std::lock_guard lock(mutex_);
      if (ending_) return;
      Accept();
      const Clock::time_point now = Clock::now();
      for (Connection& c : connections_) {
        if (cut_) Break(c);
        if (c.connecting && !c.broken) {
          pollfd probe{.fd = c.server, .events = POLLOUT, .revents = 0};
          if (poll(&probe, 1, 0) == 0) continue;
          int error = 0;
          socklen_t size = sizeof error;
          getsockopt(c.server, SOL_SOCKET, SO_ERROR, &error, &size);
          if (error != 0) Break(c);
          c.connecting = false;
        }
        if (!c.broken) Pump(c, Direction::kToServer, now);
        if (!c.broken) Pump(c, Direction::kToClient, now);
        if (!c.broken && c.pipes[0].ended && c.pipes[1].ended) Break(c);
      }
      std::erase_if(connections_, [](const Connection& c) { return c.broken; });
      open_ = static_cast<int>(connections_.size());

      polled.assign({{bell_, POLLIN, 0}, {listener_, POLLIN, 0}});
      for (const Connection& c : connections_) {
        short client = 0, server = c.connecting ? POLLOUT : 0;
        for (const Direction d : {Direction::kToServer, Direction::kToClient}) {
          const Pipe& pipe = c.pipes[static_cast<size_t>(d)];
          short& source = d == Direction::kToServer ? client : server;
          short& sink = d == Direction::kToServer ? server : client;
          if (!c.connecting && !pipe.source_ended && pipe.buffered < kBufferedMax) source |= POLLIN;
          if (pipe.pieces.empty() || stalled_[static_cast<size_t>(d)] || c.connecting) continue;
          if (pipe.pieces.front().due <= now) {
            sink |= POLLOUT;
          } else {
            const auto ms =
                std::chrono::ceil<std::chrono::milliseconds>(pipe.pieces.front().due - now);
            wait_ms = wait_ms < 0 ? static_cast<int>(ms.count())
                                  : std::min(wait_ms, static_cast<int>(ms.count()));
          }
        }
        if (client != 0) polled.push_back({c.client, client, 0});
        if (server != 0) polled.push_back({c.server, server, 0});
      }
    }
    poll(polled.data(), polled.size(), wait_ms);
    uint64_t rung = 0;
    [[maybe_unused]] const ssize_t got = read(bell_, &rung, sizeof rung);
  }
}

TcpProxy::TcpProxy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TcpProxy::~TcpProxy() = default;

absl::StatusOr<std::unique_ptr<TcpProxy>> TcpProxy::Start(int port) {
  auto impl = std::make_unique<Impl>(port);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<TcpProxy>(new TcpProxy(std::move(impl)));
}

int TcpProxy::port() const { return impl_->port_; }
std::string TcpProxy::endpoint() const { return absl::StrCat("127.0.0.1:", impl_->port_); }
int TcpProxy::connections() const { return impl_->open_; }
int64_t TcpProxy::accepted() const { return impl_->accepted_; }

void TcpProxy::Cut() {
  impl_->Change([this] { impl_->cut_ = true; });
}

void TcpProxy::Stall(Direction direction) {
  impl_->Change([this, direction] { impl_->stalled_[static_cast<size_t>(direction)] = true; });
}

void TcpProxy::Stall() {
  impl_->Change([this] { impl_->stalled_ = {true, true}; });
}

void TcpProxy::Delay(absl::Duration delay) {
  impl_->Change([this, delay] { impl_->delay_ = absl::ToChronoNanoseconds(delay); });
}

void TcpProxy::HalfClose(Direction direction) {
  impl_->Change([this, direction] {
    for (Connection& c : impl_->connections_) {
      if (c.broken || c.connecting) continue;
      c.pipes[static_cast<size_t>(direction)].ended = true;
      shutdown(impl_->Sink(c, direction), SHUT_WR);
    }
  });
}

void TcpProxy::Reset() {
  impl_->Change([this] {
    for (Connection& c : impl_->connections_) impl_->Break(c);
  });
}

void TcpProxy::Heal() {
  impl_->Change([this] {
    impl_->cut_ = false;
    impl_->stalled_ = {};
    impl_->delay_ = {};
  });
}

}  // namespace conclave::testing
