#include "conclave/server/http/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "conclave/base/unix_socket.h"

namespace conclave::http {
namespace {

constexpr int kBacklog = 1024;

absl::Status BindError(const std::string& address, const std::string& reason) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", reason));
}

absl::StatusOr<int> BindAndListen(const std::string& name, const sockaddr* address, socklen_t size,
                                  bool reuse_port) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return BindError(name, std::strerror(errno));
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (bind(fd, address, size) != 0 || listen(fd, kBacklog) != 0) {
    const int failure = errno;
    close(fd);
    return BindError(name, std::strerror(failure));
  }
  return fd;
}

}  // namespace

absl::StatusOr<ListenSocket> ListenOnPort(const std::string& host, uint16_t port, bool reuse_port) {
  const std::string name = absl::StrCat(host, ":", port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                   std::to_string(port).c_str(), &hints, &found);
  if (resolved != 0) return BindError(name, gai_strerror(resolved));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> free_later(found, &freeaddrinfo);
  // A name with several addresses ("localhost") is served on the first one, as by etcd.
  const auto fd = BindAndListen(name, found->ai_addr, found->ai_addrlen, reuse_port);
  if (!fd.ok()) return fd.status();
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(*fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    const int failure = errno;
    close(*fd);
    return BindError(name, std::strerror(failure));
  }
  const uint16_t picked = bound.ss_family == AF_INET6
                              ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                              : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
  return ListenSocket{*fd, found->ai_family, ntohs(picked)};
}

absl::StatusOr<ListenSocket> ListenOnPath(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return BindError(path, "the path is too long for a socket");
  }
  path.copy(address.sun_path, path.size());
  if (!RemoveStaleSocket(path)) return BindError(path, std::strerror(EADDRINUSE));
  const auto fd =
      BindAndListen(path, reinterpret_cast<const sockaddr*>(&address), sizeof address, false);
  if (!fd.ok()) return fd.status();
  return ListenSocket{*fd, AF_UNIX, 0};
}

}  // namespace conclave::http
