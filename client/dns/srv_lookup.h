// SRV records of the DNS: where a domain says that its cluster is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave {

// "srv://example.com", "srv://example.com?name=prod&dns=127.0.0.1:5353".
struct SrvTarget {
  std::string domain{};
  std::string name{};  // appended to the service: _etcd-client-NAME._tcp
  std::string dns{};   // "IPv4" or "IPv4:port" of the server to ask; empty: the system's

  bool uses_tls = false;  // asks for _etcd-client-ssl

  std::string service() const;  // "_etcd-client._tcp.example.com"

  friend bool operator==(const SrvTarget&, const SrvTarget&) = default;
};

bool IsSrvTarget(std::string_view text);
absl::StatusOr<SrvTarget> ParseSrvTarget(std::string_view text);

// Blocks while it asks: for some seconds if nobody answers (two attempts of a second at each of at
// most three servers). "host:port" of each record, by priority, then by name; at most 64. NotFound:
// there are none. Unavailable: the DNS did not answer. FailedPrecondition: the domain offers its
// cluster over TLS only.
absl::StatusOr<std::vector<std::string>> LookupSrv(const SrvTarget& target);

}  // namespace conclave
