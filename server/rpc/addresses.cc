#include "conclave/server/rpc/addresses.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <utility>

namespace conclave::rpc {

std::optional<std::pair<std::string, std::string>> SplitAddress(const std::string& url) {
  const size_t scheme = url.find("://");
  std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  if (const size_t slash = rest.find('/'); slash != std::string::npos) rest.resize(slash);
  const size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon + 1 == rest.size()) return std::nullopt;
  std::string host = rest.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return std::make_pair(std::move(host), rest.substr(colon + 1));
}

std::optional<PeerUrl> ParsePeerUrl(const std::string& url) {
  const size_t separator = url.find("://");
  const std::string scheme = separator == std::string::npos ? "http" : url.substr(0, separator);
  PeerUrl parsed;
  parsed.is_tls = scheme == "https" || scheme == "unixs";
  parsed.is_unix = scheme == "unix" || scheme == "unixs";
  if (parsed.is_unix) {
    parsed.host = url.substr(separator + 3);
    return parsed;
  }
  if (scheme != "http" && scheme != "https") return std::nullopt;
  auto parts = SplitAddress(url);
  if (!parts.has_value()) return std::nullopt;
  parsed.host = std::move(parts->first);
  parsed.port = std::move(parts->second);
  return parsed;
}

std::optional<SocketAddress> UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return std::nullopt;
  path.copy(address.sun_path, path.size());
  const char* begin = reinterpret_cast<const char*>(&address);
  return SocketAddress(begin, begin + sizeof address);
}

std::vector<SocketAddress> Resolve(const std::string& host, const std::string& port,
                                   bool literal_only) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (literal_only ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  std::vector<SocketAddress> addresses;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    const char* begin = reinterpret_cast<const char*>(entry->ai_addr);
    addresses.emplace_back(begin, begin + entry->ai_addrlen);
  }
  freeaddrinfo(found);
  return addresses;
}

}  // namespace conclave::rpc
