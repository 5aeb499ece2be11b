#include "conclave/server/http/front_door.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::string_view kHttp2Start = "PRI ";  // no HTTP/1.1 method
constexpr auto kPeekAgain = std::chrono::milliseconds(20);
constexpr auto kAcceptAgain = std::chrono::milliseconds(100);  // out of descriptors
constexpr int kBacklog = 1024;

// Counts a connection while it lives.
class Slot {
 public:
  explicit Slot(std::shared_ptr<size_t> count) : count_(std::move(count)) { ++*count_; }
  ~Slot() { --*count_; }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  const std::shared_ptr<size_t> count_;
};

// One connection whose protocol is not known yet.
class PeekConnection : public std::enable_shared_from_this<PeekConnection> {
 public:
  PeekConnection(tcp::socket socket, Serves serves, const std::function<void(int)>* hand_over,
                 HttpShared* shared, std::shared_ptr<Slot> slot)
      : socket_(std::move(socket)),
        deadline_(socket_.get_executor(), kFirstBytesTimeout),
        again_(socket_.get_executor()),
        serves_(serves),
        hand_over_(hand_over),
        shared_(shared),
        slot_(std::move(slot)) {}

  void Start() {
    deadline_.async_wait([weak = weak_from_this()](error_code error) {
      if (error) return;
      if (auto self = weak.lock()) {
        error_code ignored;
        self->again_.cancel(ignored);
        self->socket_.close(ignored);
      }
    });
    Wait();
  }

 private:
  void Wait() {
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      if (!error) self->Peek();
    });
  }

  void Peek() {
    char bytes[kHttp2Start.size()];
    const ssize_t got = recv(socket_.native_handle(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Wait();
    if (got <= 0) return;  // gone
    const std::string_view seen(bytes, static_cast<size_t>(got));
    if (seen != kHttp2Start.substr(0, seen.size())) return ServeHttp();
    if (seen.size() == kHttp2Start.size()) return HandOver();
    // The first bytes of a preface, but too few. They stay readable, so waiting for the socket
    // would not wait.
    again_.expires_after(kPeekAgain);
    again_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->Peek();
    });
  }

  void ServeHttp() {
    deadline_.cancel();
    if (serves_ == Serves::kGrpcOnly) return;  // closes it
    std::make_shared<HttpConnection>(std::move(socket_), serves_, shared_, slot_)->Start();
  }

  void HandOver() {
    deadline_.cancel();
    error_code error;
    const int fd = socket_.release(error);
    if (error) return;
    (*hand_over_)(fd);
  }

  tcp::socket socket_;
  asio::steady_timer deadline_;
  asio::steady_timer again_;
  const Serves serves_;
  const std::function<void(int)>* const hand_over_;
  HttpShared* const shared_;
  const std::shared_ptr<Slot> slot_;
};

absl::Status BindError(const Endpoint& endpoint, const std::string& reason) {
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", endpoint.host, ":", endpoint.port, ": ", reason));
}

}  // namespace

class FrontDoor::Impl {
 public:
  ~Impl() { Stop(); }

  absl::Status Bind(const Endpoint& endpoint);
  void Start(std::function<void(int)> hand_over, Backend* backend, FrontDoorOptions options);
  void Stop();

  std::vector<uint16_t> ports_;

 private:
  struct Listener {
    Listener(asio::io_context& context, int family, int fd)
        : acceptor(context, family == AF_INET6 ? tcp::v6() : tcp::v4(), fd), again(context) {}
    tcp::acceptor acceptor;
    asio::steady_timer again;
    Serves serves = Serves::kAll;
  };

  void Accept(Listener* listener);
  void OnAccepted(Listener* listener, tcp::socket socket);

  asio::io_context context_{1};
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::function<void(int)> hand_over_;
  asio::thread_pool converter_{1};
  HttpShared shared_;
  const std::shared_ptr<size_t> connections_ = std::make_shared<size_t>(0);
  std::thread thread_;
};

absl::Status FrontDoor::Impl::Bind(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(endpoint.host.empty() ? nullptr : endpoint.host.c_str(),
                                   std::to_string(endpoint.port).c_str(), &hints, &found);
  if (resolved != 0) return BindError(endpoint, gai_strerror(resolved));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> free_later(found, &freeaddrinfo);
  // A name with several addresses ("localhost") is served on the first one, as by etcd.
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return BindError(endpoint, std::strerror(errno));
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (endpoint.reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  sockaddr_storage bound{};
  socklen_t bound_size = sizeof bound;
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, kBacklog) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bound_size) != 0) {
    const int failure = errno;
    close(fd);
    return BindError(endpoint, std::strerror(failure));
  }
  const uint16_t port = found->ai_family == AF_INET6
                            ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
  ports_.push_back(ntohs(port));
  listeners_.push_back(std::make_unique<Listener>(context_, found->ai_family, fd));
  listeners_.back()->serves = endpoint.serves;
  return absl::OkStatus();
}

void FrontDoor::Impl::Start(std::function<void(int)> hand_over, Backend* backend,
                            FrontDoorOptions options) {
  hand_over_ = std::move(hand_over);
  shared_.gateway = {.context = &context_,
                     .converter = &converter_,
                     .backend = backend,
                     .message_bytes_max = options.message_bytes_max};
  shared_.access = std::move(options.access);
  for (const auto& listener : listeners_) Accept(listener.get());
  thread_ = std::thread([this] {
    auto work = asio::make_work_guard(context_);
    context_.run();
  });
}

void FrontDoor::Impl::Accept(Listener* listener) {
  listener->acceptor.async_accept([this, listener](error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      OnAccepted(listener, std::move(socket));
    } else if (error == asio::error::no_descriptors ||
               error == boost::system::errc::too_many_files_open_in_system) {
      listener->again.expires_after(kAcceptAgain);
      listener->again.async_wait([this, listener](error_code stopped) {
        if (!stopped) Accept(listener);
      });
      return;
    }
    Accept(listener);
  });
}

void FrontDoor::Impl::OnAccepted(Listener* listener, tcp::socket socket) {
  if (*connections_ >= kConnectionsMax) return;  // closes it
  error_code ignored;
  // Without it every call waits 40 ms for the acknowledgement of its headers.
  socket.set_option(tcp::no_delay(true), ignored);
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
  // gRPC takes descriptors that do not block, and asio's own mode is not the descriptor's.
  socket.native_non_blocking(true, ignored);
  auto slot = std::make_shared<Slot>(connections_);
  const Serves serves = listener->serves;
  if (serves == Serves::kHttpOnly || serves == Serves::kMetrics) {
    std::make_shared<HttpConnection>(std::move(socket), serves, &shared_, std::move(slot))->Start();
    return;
  }
  std::make_shared<PeekConnection>(std::move(socket), serves, &hand_over_, &shared_,
                                   std::move(slot))
      ->Start();
}

void FrontDoor::Impl::Stop() {
  if (!thread_.joinable()) return;
  context_.stop();
  thread_.join();
  converter_.join();
  while (!shared_.open.empty()) {
    const std::shared_ptr<HttpConnection> connection = *shared_.open.begin();
    connection->Close();
  }
  // Listening sockets go now, so that the port is free for the next process.
  listeners_.clear();
}

FrontDoor::FrontDoor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FrontDoor::~FrontDoor() = default;

absl::StatusOr<std::unique_ptr<FrontDoor>> FrontDoor::Bind(const std::vector<Endpoint>& endpoints) {
  auto impl = std::make_unique<Impl>();
  for (const Endpoint& endpoint : endpoints) {
    if (absl::Status status = impl->Bind(endpoint); !status.ok()) return status;
  }
  return std::unique_ptr<FrontDoor>(new FrontDoor(std::move(impl)));
}

void FrontDoor::Start(std::function<void(int)> hand_over, Backend* backend,
                      FrontDoorOptions options) {
  impl_->Start(std::move(hand_over), backend, std::move(options));
}
void FrontDoor::Stop() { impl_->Stop(); }
std::vector<uint16_t> FrontDoor::ports() const { return impl_->ports_; }

}  // namespace conclave::http
