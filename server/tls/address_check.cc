#include "conclave/server/tls/address_check.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace conclave::tls {
namespace {

constexpr size_t kV4Bytes = 4;
constexpr size_t kNamesMax = 100;  // that are looked up for one certificate

std::string Text(const std::string& ip) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(ip.size() == kV4Bytes ? AF_INET : AF_INET6, ip.data(), text, sizeof text);
  return text;
}

// An IPv4 address that comes in IPv6's clothes is one of IPv4.
std::string BytesOf(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
    return {reinterpret_cast<const char*>(&v4), sizeof v4};
  }
  if (address->sa_family != AF_INET6) return {};
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  const std::string bytes(reinterpret_cast<const char*>(&v6), sizeof v6);
  return IN6_IS_ADDR_V4MAPPED(&v6) ? bytes.substr(bytes.size() - kV4Bytes) : bytes;
}

bool Contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

bool HasAddress(const std::string& name, const std::string& ip) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(name.c_str(), nullptr, &hints, &found) != 0) return false;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> free_later(found, &freeaddrinfo);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (BytesOf(at->ai_addr) == ip) return true;
  }
  return false;
}

// As the DNS tells backwards; empty if it does not.
std::string NameOf(const std::string& ip) {
  sockaddr_storage address{};
  socklen_t size = 0;
  if (ip.size() == kV4Bytes) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
    v4->sin_family = AF_INET;
    std::memcpy(&v4->sin_addr, ip.data(), ip.size());
    size = sizeof *v4;
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    v6->sin6_family = AF_INET6;
    std::memcpy(&v6->sin6_addr, ip.data(), ip.size());
    size = sizeof *v6;
  }
  char name[NI_MAXHOST] = "";
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, name, sizeof name, nullptr, 0,
                  NI_NAMEREQD) != 0) {
    return {};
  }
  std::string text = absl::AsciiStrToLower(name);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

// "*.example.com" is any one word before ".example.com".
bool MatchesWildcard(const std::string& pattern, const std::string& name) {
  const size_t dot = name.find('.');
  return dot != std::string::npos && dot > 0 &&
         name.substr(dot) == absl::AsciiStrToLower(pattern.substr(1));
}

}  // namespace

bool NeedsLookup(const CertificateAddresses& addresses, const std::string& ip) {
  return !ip.empty() && !addresses.names.empty() && !Contains(addresses.ips, ip);
}

std::string WhyNotFrom(const CertificateAddresses& addresses, const std::string& ip) {
  const bool says_nothing = addresses.ips.empty() && addresses.names.empty();
  if (ip.empty() || says_nothing || Contains(addresses.ips, ip)) return {};
  if (addresses.names.empty()) {
    std::vector<std::string> texts;
    for (const std::string& each : addresses.ips) texts.push_back(Text(each));
    return absl::StrCat("x509: certificate is valid for ", absl::StrJoin(texts, ", "), ", not ",
                        Text(ip));
  }
  const size_t count = std::min(addresses.names.size(), kNamesMax);
  std::string own_name;
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = addresses.names[i];
    if (!name.starts_with("*.")) {
      if (HasAddress(name, ip)) return {};
      continue;
    }
    if (own_name.empty()) own_name = NameOf(ip);
    if (MatchesWildcard(name, own_name)) return {};
  }
  return absl::StrCat("tls: \"", Text(ip), "\" does not match any of DNSNames [\"",
                      absl::StrJoin(addresses.names, "\" \""), "\"]");
}

std::string RemoteIp(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return BytesOf(reinterpret_cast<const sockaddr*>(&address));
}

}  // namespace conclave::tls
