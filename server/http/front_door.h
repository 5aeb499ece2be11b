// FrontDoor: the listening sockets of the client port and its like. A Greeter finds out what each
// client speaks: who speaks HTTP/2 is handed over, who speaks HTTP/1.1 stays here. What a client of
// HTTP/2 asks for that is no call of gRPC comes back to the Http2Desk.
//
// Thread: one of its own, for accepting, greeting (with the handshakes of TLS) and all HTTP;
// nothing here blocks it. A second one converts large messages of the gateway. Limits:
// kConnectionsMax connections that have not been handed over, and ListenOptions::clients_max in
// all; who comes beyond is disconnected, with a line in the log.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/http/backend.h"
#include "conclave/server/http/greeter.h"
#include "conclave/server/http/http2_desk.h"
#include "conclave/server/http/http_connection.h"
#include "conclave/server/tls/policy.h"

namespace conclave::http {

inline constexpr size_t kConnectionsMax = 4096;

struct Endpoint {
  std::string host;  // a name or an address
  uint16_t port = 0;
  Serves serves = Serves::kAll;
  bool reuse_port = false;     // further processes may listen there (SO_REUSEPORT)
  bool is_unix = false;        // `host` is the path of its socket
  bool plain = true;           // takes plain text
  tls::Policy* tls = nullptr;  // takes TLS; may be both
};

struct ListenOptions {
  tls::Policy::Log log{};  // what is turned away
  // Connections of all endpoints together, also those that have been handed over.
  size_t clients_max = 100'000;
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
  static absl::StatusOr<std::unique_ptr<FrontDoor>> Bind(const std::vector<Endpoint>& endpoints,
                                                         ListenOptions options = {});
  ~FrontDoor();

  // For what clients that are handed over ask for besides gRPC; before Start. It lives as long as
  // the door.
  Http2Desk* OpenHttp2(Http2Answers answers);
  // `hand_over` takes connections whose clients speak HTTP/2. `backend` must outlive the door.
  void Start(std::function<void(Handed)> hand_over, Backend* backend,
             FrontDoorOptions options = {});
  // No answers follow to what came by HTTP/2; to be called before who takes them goes.
  void StopHttp2();
  // Takes no more connections; open HTTP ones are closed.
  void Stop();

  // The ports that were bound, in the order of the endpoints; 0 for a unix socket.
  std::vector<uint16_t> ports() const;

 private:
  class Impl;
  explicit FrontDoor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::http
