// AdsServer: serves a Catalog to xDS clients over gRPC, on a unix socket or a TCP port.
//
// The same code stands behind Dial() (in the client's own process, on a private socket) and behind
// a port of the server, from where any gRPC client in any language discovers with the target
// `xds:///my-service`.
//
// Threads: one of its own for all streams, polling one completion queue (gRPC 1.51's callback API
// may sleep for 100 ms before it starts). The methods may be called from any other thread; they
// leave a note for that thread and return at once. Limits: kStreamsMax streams; see AdsStream for
// those of a stream; kSightsMax pairs of a user and a service are judged, what comes beyond waits.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/discovery/xds/catalog.h"

namespace grpc {
class ServerCredentials;
}

namespace conclave::xds {

class AdsServer {
 public:
  static constexpr size_t kStreamsMax = 10'000;
  static constexpr size_t kSightsMax = 100'000;

  struct Options {
    std::string address;  // "unix:/path/of/socket" or "127.0.0.1:0"
    std::shared_ptr<grpc::ServerCredentials> credentials;  // null: none (insecure)
    Catalog::Options catalog;
    Duration coalesce = std::chrono::milliseconds(10);
    // Called on the server's thread when the first client asks for a service's endpoints (wanted)
    // and when the last one has gone. Must not block.
    std::function<void(const std::string& cluster, bool wanted)> on_interest;
    // Whether a client may see a service's endpoints; `user` is the common name in the certificate
    // that it has shown, "" without one. Null: everybody sees everything. Asked on the server's
    // thread, which must not be blocked, and again every `judge_again`. `answer` may be called on
    // any thread, once, also when the server is gone; nullopt: that cannot be said now.
    using Answer = std::function<void(std::optional<bool>)>;
    std::function<void(const std::string& user, const std::string& cluster, Answer answer)> may_see;
    Duration judge_again = std::chrono::seconds(5);
    // One line for the log, on the server's thread: a client refused an update, a stream was turned
    // away.
    std::function<void(const std::string& line)> on_trouble;
  };

  struct Stats {
    uint64_t streams = 0;
    uint64_t responses = 0;
    uint64_t acks = 0;
    uint64_t nacks = 0;
  };

  // Of the clients of one declared listener.
  struct ListenerStats {
    uint64_t streams = 0;    // open now
    uint64_t responses = 0;  // sent
    uint64_t acks = 0;
    uint64_t nacks = 0;
    std::string last_error;  // why the last one was refused
  };

  [[nodiscard]] static absl::StatusOr<std::unique_ptr<AdsServer>> Start(Options options);
  // Ends all streams and the thread. Not from the server's own callbacks.
  ~AdsServer();
  AdsServer(const AdsServer&) = delete;
  AdsServer& operator=(const AdsServer&) = delete;

  // As in Catalog.
  void Declare(std::string listener, std::string cluster, CallPolicy policy);
  void Withdraw(std::string listener);
  void SetEndpoints(std::string cluster, EndpointSet endpoints);
  void ForgetEndpoints(std::string cluster);

  // The TCP port (0 for a unix socket).
  int port() const;
  Stats stats() const;
  // Zeros for one that is not declared, or has not been asked for.
  ListenerStats StatsOf(const std::string& listener) const;

 private:
  class Impl;
  explicit AdsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::xds
