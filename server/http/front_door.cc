#include "conclave/server/http/front_door.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio.hpp>
#include <memory>
#include <thread>
#include <utility>

#include "conclave/base/status.h"
#include "conclave/server/http/http2_desk.h"
#include "conclave/server/http/http_stream.h"
#include "conclave/server/http/listen_socket.h"
#include "conclave/server/http/web_socket.h"

namespace conclave::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptAgain = std::chrono::milliseconds(100);  // out of descriptors

// Counts a connection while it lives. Any thread.
class Slot {
 public:
  explicit Slot(std::shared_ptr<std::atomic<size_t>> count) : count_(std::move(count)) {
    count_->fetch_add(1, std::memory_order_relaxed);
  }
  ~Slot() { count_->fetch_sub(1, std::memory_order_relaxed); }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  const std::shared_ptr<std::atomic<size_t>> count_;
};

}  // namespace

class FrontDoor::Impl {
 public:
  explicit Impl(ListenOptions options)
      : options_(std::move(options)),
        rejections_("rejected connection on client endpoint", options_.log) {}
  ~Impl() {
    Stop();
    RemoveSockets();
  }

  absl::Status Bind(const Endpoint& endpoint);
  void Start(std::function<void(Handed)> hand_over, Backend* backend, FrontDoorOptions options);
  void Stop();

  Http2Desk* OpenHttp2(Http2Answers answers) {
    desk_ = std::make_unique<Http2Desk>(&shared_, std::move(answers));
    return desk_.get();
  }
  void StopHttp2() {
    if (desk_ != nullptr) desk_->Stop();
  }

  std::vector<uint16_t> ports_;

 private:
  struct Listener {
    Listener(asio::io_context& context, int family, int fd)
        : acceptor(context, family == AF_INET6 ? tcp::v6() : tcp::v4(), fd), again(context) {}
    tcp::acceptor acceptor;
    asio::steady_timer again;
    Welcome welcome;
    std::string path;  // of a unix socket
  };

  void RemoveSockets();
  void Accept(Listener* listener);
  void OnAccepted(Listener* listener, tcp::socket socket);

  const ListenOptions options_;
  tls::Rejections rejections_;
  asio::io_context context_{1};
  std::vector<std::unique_ptr<Listener>> listeners_;
  asio::thread_pool converter_{1};
  HttpShared shared_;
  std::unique_ptr<Http2Desk> desk_;
  // Connections, and those of them that have not been handed over.
  const std::shared_ptr<std::atomic<size_t>> open_ = std::make_shared<std::atomic<size_t>>(0);
  const std::shared_ptr<std::atomic<size_t>> pending_ = std::make_shared<std::atomic<size_t>>(0);
  std::thread thread_;
};

absl::Status FrontDoor::Impl::Bind(const Endpoint& endpoint) {
  CONCLAVE_ASSIGN_OR_RETURN(const ListenSocket bound,
                            endpoint.is_unix
                                ? ListenOnPath(endpoint.host)
                                : ListenOnPort(endpoint.host, endpoint.port, endpoint.reuse_port));
  ports_.push_back(bound.port);
  auto listener = std::make_unique<Listener>(context_, bound.family, bound.fd);
  if (endpoint.is_unix) listener->path = endpoint.host;
  listener->welcome.serves = endpoint.serves;
  listener->welcome.plain = endpoint.plain;
  listener->welcome.tls = endpoint.tls;
  listener->welcome.rejections = &rejections_;
  listeners_.push_back(std::move(listener));
  return absl::OkStatus();
}

void FrontDoor::Impl::Start(std::function<void(Handed)> hand_over, Backend* backend,
                            FrontDoorOptions options) {
  shared_.gateway = {.context = &context_,
                     .converter = &converter_,
                     .backend = backend,
                     .message_bytes_max = options.message_bytes_max};
  shared_.access = std::move(options.access);
  for (const auto& listener : listeners_) {
    listener->welcome.hand_over = hand_over;
    listener->welcome.serve_http = [this, serves = listener->welcome.serves](
                                       HttpStream stream, std::shared_ptr<void> slot) {
      std::make_shared<HttpConnection>(std::move(stream), serves, &shared_, std::move(slot))
          ->Start();
    };
    Accept(listener.get());
  }
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
  if (*pending_ >= kConnectionsMax || *open_ >= options_.clients_max) {
    rejections_.Add(Instant(std::chrono::steady_clock::now().time_since_epoch()),
                    tls::RemoteAddress(socket.native_handle()), {}, "too many connections");
    return;  // closes it
  }
  error_code ignored;
  // Without it every call waits 40 ms for the acknowledgement of its headers.
  if (listener->path.empty()) socket.set_option(tcp::no_delay(true), ignored);
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
  // gRPC takes descriptors that do not block, and asio's own mode is not the descriptor's.
  socket.native_non_blocking(true, ignored);
  std::make_shared<Greeter>(std::move(socket), &listener->welcome, std::make_shared<Slot>(pending_),
                            std::make_shared<Slot>(open_))
      ->Start();
}

void FrontDoor::Impl::Stop() {
  if (!thread_.joinable()) return;
  StopHttp2();
  context_.stop();
  thread_.join();
  converter_.join();
  while (!shared_.open.empty()) {
    const std::shared_ptr<HttpConnection> connection = *shared_.open.begin();
    connection->Close();
  }
  while (!shared_.open_web_sockets.empty()) {
    const std::shared_ptr<WebSocket> socket = *shared_.open_web_sockets.begin();
    socket->Close();
  }
  if (desk_ != nullptr) desk_->CloseAll();
  // Listening sockets go now, so that the port is free for the next process.
  RemoveSockets();
  listeners_.clear();
}

void FrontDoor::Impl::RemoveSockets() {
  for (const auto& listener : listeners_) {
    if (!listener->path.empty()) unlink(listener->path.c_str());
  }
}

FrontDoor::FrontDoor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FrontDoor::~FrontDoor() = default;

absl::StatusOr<std::unique_ptr<FrontDoor>> FrontDoor::Bind(const std::vector<Endpoint>& endpoints,
                                                           ListenOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  for (const Endpoint& endpoint : endpoints) {
    if (absl::Status status = impl->Bind(endpoint); !status.ok()) return status;
  }
  return std::unique_ptr<FrontDoor>(new FrontDoor(std::move(impl)));
}

void FrontDoor::Start(std::function<void(Handed)> hand_over, Backend* backend,
                      FrontDoorOptions options) {
  impl_->Start(std::move(hand_over), backend, std::move(options));
}
void FrontDoor::Stop() { impl_->Stop(); }
void FrontDoor::StopHttp2() { impl_->StopHttp2(); }
Http2Desk* FrontDoor::OpenHttp2(Http2Answers answers) {
  return impl_->OpenHttp2(std::move(answers));
}
std::vector<uint16_t> FrontDoor::ports() const { return impl_->ports_; }

}  // namespace conclave::http
