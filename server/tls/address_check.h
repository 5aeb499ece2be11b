// Where a certificate says that its owner is, compared with where he calls from: etcd's check of
// members.
#pragma once

#include <string>
#include <vector>

namespace conclave::tls {

// The subject alternative names that are addresses (4 or 16 bytes each) and names of hosts.
struct CertificateAddresses {
  std::vector<std::string> ips;
  std::vector<std::string> names;
};

// Whether the answer takes a question to the DNS, because no address of the certificate settles it.
bool NeedsLookup(const CertificateAddresses& addresses, const std::string& ip);

// Empty, or why the certificate is not one of a host with this address, in etcd's words. A
// certificate without addresses and names is good from everywhere; else one of its addresses must
// be `ip`, or one of its names have it. Names that begin with "*." are compared with those that
// `ip` has. Blocks if NeedsLookup.
std::string WhyNotFrom(const CertificateAddresses& addresses, const std::string& ip);

// Of whom the socket is connected to, as above: 4 or 16 bytes; empty if that is no IP address.
std::string RemoteIp(int fd);

}  // namespace conclave::tls
