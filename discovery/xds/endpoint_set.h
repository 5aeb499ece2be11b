// EndpointSet: what an xDS client may be told of one service: IP addresses and ports, nothing else.
//
// A gRPC client refuses a whole update for the sake of one bad or duplicate address, and then goes
// on with the set before it. So a set is made only by FromAddresses, which leaves such addresses
// out and says so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave::xds {

struct Endpoint {
  std::string ip;  // an IPv4 or IPv6 literal in its canonical form, without brackets
  uint16_t port = 0;

  // "10.0.0.1:80", "[::1]:80"
  std::string ToString() const;
  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

// Splits "host:port" or "[ipv6]:port". The host may be a name; the port must be within 1..65535.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
[[nodiscard]] absl::StatusOr<HostPort> ParseHostPort(std::string_view address);

// The canonical form of an IP literal, or an error for anything else (a host name, say).
[[nodiscard]] absl::StatusOr<std::string> CanonicalIp(std::string_view host);

// Whether `host` can only be meant as an IP literal (it has a colon, or its last label is a number,
// which no host name's is), right or wrong.
[[nodiscard]] bool LooksLikeIp(std::string_view host);

class EndpointSet {
 public:
  // The endpoints of one service; more are left out, so that an update stays below gRPC's message
  // limit.
  static constexpr size_t kEndpointsMax = 10'000;

  struct Skipped {
    std::string address;
    std::string reason;
  };

  EndpointSet() = default;

  // `addresses` are "ip:port". Bad and duplicate ones are appended to *skipped (which may be null).
  static EndpointSet FromAddresses(const std::vector<std::string>& addresses,
                                   std::vector<Skipped>* skipped);

  const std::vector<Endpoint>& endpoints() const { return endpoints_; }  // sorted, unique
  size_t size() const { return endpoints_.size(); }
  bool empty() const { return endpoints_.empty(); }
  friend bool operator==(const EndpointSet&, const EndpointSet&) = default;

 private:
  std::vector<Endpoint> endpoints_;
};

}  // namespace conclave::xds
