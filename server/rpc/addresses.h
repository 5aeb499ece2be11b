// "host:port" to socket addresses.
#pragma once

#include <netdb.h>

#include <optional>
#include <string>
#include <vector>

namespace conclave::rpc {

// A sockaddr of any family.
using SocketAddress = std::vector<char>;

// What a URL of a peer says: where it is, and how to speak to it.
struct PeerUrl {
  std::string host;  // of a unix socket: its path, and there is no port
  std::string port;
  bool is_tls = false;
  bool is_unix = false;
};
// http://host:port, https://host:port, unix://path, unixs://path; plain without a scheme. Nothing
// if it is none of these.
std::optional<PeerUrl> ParsePeerUrl(const std::string& url);
// Nothing if the path is too long for one.
std::optional<SocketAddress> UnixAddress(const std::string& path);

// "http://host:port/" or "host:port" -> host and port; nothing if there is no port.
std::optional<std::pair<std::string, std::string>> SplitAddress(const std::string& url);

// Of an IP literal without asking anybody; of a name by getaddrinfo, which may take long.
std::vector<SocketAddress> Resolve(const std::string& host, const std::string& port,
                                   bool literal_only);

}  // namespace conclave::rpc
