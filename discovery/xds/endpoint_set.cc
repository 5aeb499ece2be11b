#include "conclave/discovery/xds/endpoint_set.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"

namespace conclave::xds {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

// What is wrong with an address, or the endpoint that it stands for.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view address) {
  CONCLAVE_ASSIGN_OR_RETURN(HostPort parts, ParseHostPort(address));
  CONCLAVE_ASSIGN_OR_RETURN(std::string ip, CanonicalIp(parts.host));
  return Endpoint{.ip = std::move(ip), .port = parts.port};
}

}  // namespace

std::string Endpoint::ToString() const {
  if (ip.find(':') != std::string::npos) return absl::StrCat("[", ip, "]:", port);
  return absl::StrCat(ip, ":", port);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view address) {
  std::string_view host;
  std::string_view port;
  if (!address.empty() && address.front() == '[') {
    const size_t close = address.find(']');
    if (close == std::string_view::npos || close + 1 >= address.size() ||
        address[close + 1] != ':') {
      return absl::InvalidArgumentError("not of the form [ipv6]:port");
    }
    host = address.substr(1, close - 1);
    port = address.substr(close + 2);
  } else {
    const size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) return absl::InvalidArgumentError("it has no port");
    host = address.substr(0, colon);
    port = address.substr(colon + 1);
    if (host.find(':') != std::string_view::npos) {
      return absl::InvalidArgumentError("an IPv6 address must stand in [brackets] before its port");
    }
  }
  if (host.empty()) return absl::InvalidArgumentError("it has no host");
  uint32_t number = 0;
  const bool digits =
      std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (port.empty() || !digits || !absl::SimpleAtoi(Absl(port), &number) || number == 0 ||
      number > 65535) {
    return absl::InvalidArgumentError("its port is not a number within 1..65535");
  }
  return HostPort{.host = std::string(host), .port = static_cast<uint16_t>(number)};
}

absl::StatusOr<std::string> CanonicalIp(std::string_view host) {
  const std::string text(host);
  std::array<char, INET6_ADDRSTRLEN> printed{};
  in_addr v4{};
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) {
    if (v4.s_addr == 0) return absl::InvalidArgumentError("0.0.0.0 is no address to connect to");
    return std::string(inet_ntop(AF_INET, &v4, printed.data(), printed.size()));
  }
  in6_addr v6{};
  if (inet_pton(AF_INET6, text.c_str(), &v6) == 1) {
    if (IN6_IS_ADDR_UNSPECIFIED(&v6))
      return absl::InvalidArgumentError("[::] is no address to connect to");
    return std::string(inet_ntop(AF_INET6, &v6, printed.data(), printed.size()));
  }
  return absl::InvalidArgumentError("it is not an IP address");
}

bool LooksLikeIp(std::string_view host) {
  const std::string_view last = host.substr(host.rfind('.') + 1);  // npos + 1 is 0
  return host.find(':') != std::string_view::npos ||
         std::all_of(last.begin(), last.end(), [](char c) { return c >= '0' && c <= '9'; });
}

EndpointSet EndpointSet::FromAddresses(const std::vector<std::string>& addresses,
                                       std::vector<Skipped>* skipped) {
  const auto skip = [skipped](std::string_view address, std::string_view reason) {
    if (skipped != nullptr) skipped->push_back({std::string(address), std::string(reason)});
  };
  std::vector<Endpoint> endpoints;
  endpoints.reserve(addresses.size());
  for (const std::string& address : addresses) {
    absl::StatusOr<Endpoint> endpoint = ParseEndpoint(address);
    if (endpoint.ok()) {
      endpoints.push_back(*std::move(endpoint));
    } else {
      skip(address, std::string(endpoint.status().message()));
    }
  }
  std::sort(endpoints.begin(), endpoints.end());
  EndpointSet set;
  for (Endpoint& endpoint : endpoints) {
    if (!set.endpoints_.empty() && set.endpoints_.back() == endpoint) {
      skip(endpoint.ToString(), "it is there twice");
    } else if (set.endpoints_.size() == kEndpointsMax) {
      skip(endpoint.ToString(), "the service has too many endpoints");
    } else {
      set.endpoints_.push_back(std::move(endpoint));
    }
  }
  return set;
}

}  // namespace conclave::xds
