// EndpointSet: what an xDS client may be told of one service: IP addresses and ports, in localities
// with weights and priorities.
//
// A gRPC client refuses a whole update for the sake of one bad or duplicate address, one empty
// priority or a sum of weights that overflows, and then goes on with the set before it. So a set is
// made only by Arrange, which leaves bad addresses out and says so.
//
// How weights get their due: gRPC 1.51 ignores the weight of an endpoint under round robin, but
// chooses between localities by their weights. So endpoints of equal weight form a locality whose
// weight is their sum: each of them then gets calls in proportion to its own.
//
//   10.0.0.1 weight 100, 10.0.0.2 weight 100, 10.0.0.3 weight 10
//     -> locality "weight-100" of weight 200: .1 and .2 in turn; locality "weight-10" of weight 10:
//     .3
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave::xds {

struct Endpoint {
  std::string ip{};  // an IPv4 or IPv6 literal in its canonical form, without brackets
  uint16_t port = 0;
  uint32_t weight = 1;  // only a ring hash heeds it

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

  // The largest weight of an endpoint, so that no sum of them overflows.
  static constexpr uint32_t kWeightMax = 100'000;
  // The localities of one priority; if there are more different weights, near ones share one.
  static constexpr size_t kWeightClassesMax = 64;

  struct Skipped {
    std::string address;
    std::string reason;
  };
  // What an endpoint is made from.
  struct Candidate {
    std::string address{};  // "ip:port"
    std::string zone{};
    uint32_t weight = 1;  // 0: gets no calls, unless all have 0
  };
  struct Layout {
    enum class Weights {
      kIgnored,
      kByLocality,  // for round robin
      kByEndpoint,  // for a ring hash
    };
    Weights weights = Weights::kIgnored;
    // Endpoints of this zone come first; the others get calls only while none of them can be
    // reached. Empty: all alike.
    std::string first_zone{};
    friend bool operator==(const Layout&, const Layout&) = default;
  };
  struct Locality {
    uint32_t priority = 0;  // 0 is the first; without a gap
    std::string zone{};
    std::string sub_zone{};
    uint32_t weight = 1;
    std::vector<Endpoint> endpoints{};  // sorted, not empty
    friend bool operator==(const Locality&, const Locality&) = default;
  };

  EndpointSet() = default;

  // Bad and duplicate addresses are appended to *skipped (which may be null).
  static EndpointSet Arrange(const std::vector<Candidate>& candidates, const Layout& layout,
                             std::vector<Skipped>* skipped);
  // All alike.
  static EndpointSet FromAddresses(const std::vector<std::string>& addresses,
                                   std::vector<Skipped>* skipped);

  const std::vector<Locality>& localities() const { return localities_; }
  std::vector<Endpoint> endpoints() const;  // of all localities, sorted
  size_t size() const;
  bool empty() const { return localities_.empty(); }
  friend bool operator==(const EndpointSet&, const EndpointSet&) = default;

 private:
  std::vector<Locality> localities_;
};

}  // namespace conclave::xds
