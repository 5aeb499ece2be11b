#include "conclave/server/app/own_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "conclave/base/status.h"
#include "conclave/server/http/listen_socket.h"

namespace conclave::app {
namespace {

constexpr int kAcceptAgainMs = 100;

bool IsOfThisProcess(int fd) {
  ucred other{};
  socklen_t size = sizeof other;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &other, &size) == 0 && other.pid == getpid();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OwnSocket>> OwnSocket::Open() {
  CONCLAVE_ASSIGN_OR_RETURN(auto directory, PrivateDirectory::Create());
  CONCLAVE_ASSIGN_OR_RETURN(const http::ListenSocket bound,
                            http::ListenOnPath(directory->SocketPath()));
  fcntl(bound.fd, F_SETFL, fcntl(bound.fd, F_GETFL) & ~O_NONBLOCK);
  return std::unique_ptr<OwnSocket>(new OwnSocket(std::move(directory), bound.fd));
}

OwnSocket::~OwnSocket() {
  shutdown(fd_, SHUT_RDWR);  // which ends an accept
  if (thread_.joinable()) thread_.join();
  close(fd_);
}

void OwnSocket::Start(std::function<void(int fd)> take) {
  thread_ = std::thread([this, take = std::move(take)] { Accept(take); });
}

void OwnSocket::Accept(const std::function<void(int fd)>& take) const {
  for (;;) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && IsOfThisProcess(fd)) {
      take(fd);
    } else if (fd >= 0) {
      close(fd);
    } else if (errno == EINVAL) {
      return;  // shut down
    } else {
      (void)poll(nullptr, 0, kAcceptAgainMs);  // out of descriptors
    }
  }
}

}  // namespace conclave::app
