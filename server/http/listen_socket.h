// Listening sockets of the client port and its like.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace conclave::http {

struct ListenSocket {
  int fd = -1;  // the caller's; does not block
  int family = 0;
  uint16_t port = 0;  // the one that was picked, if 0 was asked for; 0 of a unix socket
};

// `reuse_port`: further processes may listen there.
//   Unavailable  the address is in use, or not of this machine
absl::StatusOr<ListenSocket> ListenOnPort(const std::string& host, uint16_t port, bool reuse_port);
// A socket that a dead process has left behind is removed; one that answers is not.
absl::StatusOr<ListenSocket> ListenOnPath(const std::string& path);

}  // namespace conclave::http
