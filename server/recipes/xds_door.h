// XdsDoor: discovery for gRPC clients of any language: `xds:///my-service` finds the instances
// under "my-service/" in the store, and follows them.
//
//   gRPC client --xDS--> AdsServer --wanted--> XdsDoor --watch--> the server's own client port
//
// Each address has an ADS server with an open catalog. A service is watched from the moment at
// which a client asks for it until `linger` after the last one has gone; its endpoints are those of
// a channel that Dial() makes without options. What cannot be a service's name has no endpoints.
//
// The store is read like any client reads it, over a connection to the server itself, which reads
// everything: the watches survive what a client's watches survive, and while the store is out of
// reach, clients keep what they have. What a client may see of it, `may_see` says.
//
// Threads: one of its own, which begins and ends the watches; one for each ADS server; those of the
// client. Limits: kNamesMax services are watched. Beyond, those that are not asked for any more
// make room; up to kWaitingMax others wait for a place, and their clients with them. The log gets
// kTroubleLinesMax lines per kTroublePeriod of what clients do wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/core/log.h"

namespace grpc {
class ServerCredentials;
}

namespace conclave::recipes {

class XdsDoor {
 public:
  static constexpr size_t kNamesMax = 10'000;
  static constexpr size_t kWaitingMax = 10'000;
  static constexpr size_t kTroubleLinesMax = 10;
  static constexpr absl::Duration kTroublePeriod = absl::Minutes(1);

  struct Options {
    std::vector<std::string> listen{};  // "127.0.0.1:2400", "[::1]:0"; at least one
    std::string store{};                // the server: "unix:///run/own.sock"
    // Of TLS on all these addresses; null: plain text.
    std::shared_ptr<grpc::ServerCredentials> credentials{};
    // As in xds::AdsServer; null: everybody sees everything.
    std::function<void(const std::string& user, const std::string& service,
                       std::function<void(std::optional<bool>)> answer)>
        may_see{};
    absl::Duration linger = absl::Seconds(30);
    size_t names_max = kNamesMax;
    LogSink log{};  // required
  };

  // Binds the addresses; it need not be possible yet to reach the store.
  //   Unavailable      an address is in use, or not of this machine
  //   InvalidArgument  `store` is not an address
  static absl::StatusOr<std::unique_ptr<XdsDoor>> Start(Options options);
  ~XdsDoor();
  XdsDoor(const XdsDoor&) = delete;
  XdsDoor& operator=(const XdsDoor&) = delete;

  // In the order of Options::listen.
  std::vector<int> ports() const;
  // How many services are watched now.
  size_t watched() const;

  struct Figures {
    size_t watched = 0;    // services
    size_t waiting = 0;    // services, for a place
    uint64_t streams = 0;  // clients' streams, now
    uint64_t responses = 0;
    uint64_t acks = 0;
    uint64_t nacks = 0;
  };
  // Of all its addresses. Any thread.
  Figures figures() const;

 private:
  class Impl;
  explicit XdsDoor(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::recipes
