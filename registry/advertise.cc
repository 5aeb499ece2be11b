#include "conclave/registry/advertise.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "conclave/registry/instance.h"

namespace conclave {
namespace {

// The local address of a socket that would send to `info`. Nothing is sent.
std::optional<std::string> LocalAddressTowards(const addrinfo& info) {
  const int fd = socket(info.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::nullopt;
  sockaddr_storage local{};
  socklen_t size = sizeof(local);
  const bool routed = connect(fd, info.ai_addr, info.ai_addrlen) == 0 &&
                      getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0;
  close(fd);
  char text[NI_MAXHOST] = {};
  if (!routed || getnameinfo(reinterpret_cast<sockaddr*>(&local), size, text, sizeof(text), nullptr,
                             0, NI_NUMERICHOST) != 0) {
    return std::nullopt;
  }
  // A link-local address with its scope: of no use to others.
  if (std::string_view(text).find('%') != std::string_view::npos) return std::nullopt;
  return info.ai_family == AF_INET6 ? absl::StrCat("[", text, "]") : std::string(text);
}

std::optional<std::string> DetectHost(const std::string& endpoint) {
  const size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  absl::string_view host = absl::string_view(endpoint).substr(0, colon);
  absl::ConsumePrefix(&host, "[");
  absl::ConsumeSuffix(&host, "]");
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(std::string(host).c_str(), endpoint.c_str() + colon + 1, &hints, &found) != 0) {
    return std::nullopt;
  }
  std::optional<std::string> local;
  for (addrinfo* each = found; each != nullptr && !local.has_value(); each = each->ai_next) {
    local = LocalAddressTowards(*each);
  }
  freeaddrinfo(found);
  return local;
}

}  // namespace

absl::StatusOr<std::string> AdvertiseAddress(const std::string& address,
                                             const std::vector<std::string>& endpoints) {
  if (address.empty()) {
    return absl::InvalidArgumentError(
        "the address is empty: give host:port, or :port to have the host found");
  }
  std::string full = address;
  if (address.front() == ':') {
    std::optional<std::string> host;
    for (const std::string& endpoint : endpoints) {
      host = DetectHost(endpoint);
      if (host.has_value()) break;
    }
    if (!host.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "no route to any endpoint tells this machine's address; give host", address));
    }
    full = absl::StrCat(*host, address);
  }
  if (absl::Status status = ValidateAddress(full); !status.ok()) return status;
  return full;
}

}  // namespace conclave
