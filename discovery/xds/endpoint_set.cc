#include "conclave/discovery/xds/endpoint_set.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <map>
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

namespace {

struct Placed {
  Endpoint endpoint;
  uint32_t weight = 1;
  bool first = true;
};

// Appends the localities of one priority.
void AppendPriority(std::vector<Placed> placed, EndpointSet::Layout::Weights weights,
                    uint32_t priority, const std::string& zone,
                    std::vector<EndpointSet::Locality>* localities) {
  using Weights = EndpointSet::Layout::Weights;
  std::map<uint32_t, std::vector<Placed>> classes;  // by weight; or all in one
  for (Placed& one : placed) {
    const uint32_t weight_class = weights == Weights::kByLocality ? one.weight : 1;
    classes[weight_class].push_back(std::move(one));
  }
  // Too many: let classes of nearly the same weight share one, the coarser the more there are.
  for (int bits = 7; classes.size() > EndpointSet::kWeightClassesMax; --bits) {
    std::map<uint32_t, std::vector<Placed>> coarser;
    for (auto& [weight, members] : classes) {
      const int surplus = std::max(0, static_cast<int>(std::bit_width(weight)) - bits);
      auto& into = coarser[weight >> surplus << surplus];
      std::move(members.begin(), members.end(), std::back_inserter(into));
    }
    classes = std::move(coarser);
  }
  for (auto& [weight_class, members] : classes) {
    EndpointSet::Locality locality{.priority = priority, .zone = zone, .weight = 0};
    if (weights == Weights::kByLocality) locality.sub_zone = absl::StrCat("weight-", weight_class);
    for (Placed& one : members) {
      locality.weight += weights == Weights::kByLocality ? one.weight : 0;
      if (weights == Weights::kByEndpoint) one.endpoint.weight = one.weight;
      locality.endpoints.push_back(std::move(one.endpoint));
    }
    if (weights != Weights::kByLocality) locality.weight = 1;
    std::sort(locality.endpoints.begin(), locality.endpoints.end());
    localities->push_back(std::move(locality));
  }
}

}  // namespace

EndpointSet EndpointSet::Arrange(const std::vector<Candidate>& candidates, const Layout& layout,
                                 std::vector<Skipped>* skipped) {
  const auto skip = [skipped](std::string_view address, std::string_view reason) {
    if (skipped != nullptr) skipped->push_back({std::string(address), std::string(reason)});
  };
  const bool weighted = layout.weights != Layout::Weights::kIgnored;
  const bool all_zero = std::all_of(candidates.begin(), candidates.end(),
                                    [](const Candidate& c) { return c.weight == 0; });
  std::vector<Placed> placed;
  placed.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    absl::StatusOr<Endpoint> endpoint = ParseEndpoint(candidate.address);
    if (!endpoint.ok()) {
      skip(candidate.address, std::string(endpoint.status().message()));
      continue;
    }
    if (weighted && candidate.weight == 0 && !all_zero) continue;
    placed.push_back({.endpoint = *std::move(endpoint),
                      .weight = std::clamp(candidate.weight, uint32_t{1}, kWeightMax),
                      .first = layout.first_zone.empty() || candidate.zone == layout.first_zone});
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const Placed& a, const Placed& b) { return a.endpoint < b.endpoint; });
  std::vector<Placed> first;
  std::vector<Placed> rest;
  const Endpoint* last = nullptr;
  for (Placed& one : placed) {
    if (last != nullptr && *last == one.endpoint) {
      skip(one.endpoint.ToString(), "it is there twice");
    } else if (first.size() + rest.size() == kEndpointsMax) {
      skip(one.endpoint.ToString(), "the service has too many endpoints");
    } else {
      last = &one.endpoint;
      (one.first ? first : rest).push_back(one);
    }
  }
  EndpointSet set;
  // A priority must not be empty: without an endpoint in the first zone the rest is the first.
  uint32_t priority = 0;
  if (!first.empty()) {
    AppendPriority(std::move(first), layout.weights, priority++, layout.first_zone,
                   &set.localities_);
  }
  if (!rest.empty()) {
    AppendPriority(std::move(rest), layout.weights, priority, "elsewhere", &set.localities_);
  }
  return set;
}

EndpointSet EndpointSet::FromAddresses(const std::vector<std::string>& addresses,
                                       std::vector<Skipped>* skipped) {
  std::vector<Candidate> candidates;
  candidates.reserve(addresses.size());
  for (const std::string& address : addresses) candidates.push_back({.address = address});
  return Arrange(candidates, {}, skipped);
}

std::vector<Endpoint> EndpointSet::endpoints() const {
  std::vector<Endpoint> all;
  for (const Locality& locality : localities_) {
    all.insert(all.end(), locality.endpoints.begin(), locality.endpoints.end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

size_t EndpointSet::size() const {
  size_t size = 0;
  for (const Locality& locality : localities_) size += locality.endpoints.size();
  return size;
}

}  // namespace conclave::xds
