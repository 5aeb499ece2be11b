// "host:port" to socket addresses.
#pragma once

#include <netdb.h>

#include <optional>
#include <string>
#include <vector>

namespace conclave::rpc {

// A sockaddr of any family.
using SocketAddress = std::vector<char>;

// "http://host:port/" or "host:port" -> host and port; nothing if there is no port.
std::optional<std::pair<std::string, std::string>> SplitAddress(const std::string& url);

// Of an IP literal without asking anybody; of a name by getaddrinfo, which may take long.
std::vector<SocketAddress> Resolve(const std::string& host, const std::string& port,
                                   bool literal_only);

}  // namespace conclave::rpc
