// FrontDoor: the listening sockets of the client port, and the HTTP/1.1 side of it.
//
// One port serves gRPC and HTTP/1.1. The first bytes of a connection tell which: HTTP/2 starts with
// "PRI * HTTP/2.0", no HTTP/1.1 request does. They are looked at without being taken (MSG_PEEK),
// and the connection goes to gRPC as it is, or stays here. Bytes that are neither are answered 400
// by the HTTP side, or by nothing.
//
// Thread: one of its own, for accepting, peeking and all HTTP; nothing here blocks it. A second one
// converts large messages of the gateway. Limits: kConnectionsMax connections that have not been
// handed over; a client that does not show its first bytes within kFirstBytesTimeout is
// disconnected.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/http/backend.h"
#include "conclave/server/http/http_connection.h"

namespace conclave::http {

inline constexpr size_t kConnectionsMax = 4096;
inline constexpr auto kFirstBytesTimeout = std::chrono::seconds(10);

struct Endpoint {
  std::string host;  // a name or an address
  uint16_t port = 0;
  Serves serves = Serves::kAll;
  bool reuse_port = false;  // further processes may listen there (SO_REUSEPORT)
};

struct FrontDoorOptions {
  AccessPolicy access{};
  // Of one message of the gateway, in JSON.
  size_t message_bytes_max = 4u << 20;
};

class FrontDoor {
 public:
  // Binds all endpoints; connections wait in the backlog until Start. Port 0 picks a free one.
  //   Unavailable  an address is in use, or not of this machine
  static absl::StatusOr<std::unique_ptr<FrontDoor>> Bind(const std::vector<Endpoint>& endpoints);
  ~FrontDoor();

  // `hand_over` takes a descriptor whose client speaks HTTP/2. `backend` must outlive the door.
  void Start(std::function<void(int)> hand_over, Backend* backend, FrontDoorOptions options = {});
  // Takes no more connections; open HTTP ones are closed.
  void Stop();

  // The ports that were bound, in the order of the endpoints.
  std::vector<uint16_t> ports() const;

 private:
  class Impl;
  explicit FrontDoor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::http
