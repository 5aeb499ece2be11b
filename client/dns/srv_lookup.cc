#include "conclave/client/dns/srv_lookup.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace conclave {
namespace {

constexpr absl::string_view kScheme = "srv://";
constexpr size_t kRecordsMax = 64;
constexpr size_t kNameMax = 253;
constexpr size_t kAnswerBytesMax = 65536;
constexpr int kTimeoutSeconds = 1;
constexpr int kAttempts = 2;
constexpr uint16_t kDnsPort = 53;

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kNameMax && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

absl::StatusOr<sockaddr_in> ParseServer(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  uint32_t port = kDnsPort;
  const bool good_port =
      parts.size() == 1 ||
      (parts.size() == 2 && absl::SimpleAtoi(parts[1], &port) && port > 0 && port <= 65535);
  if (!good_port || inet_pton(AF_INET, parts[0].c_str(), &address.sin_addr) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("dns=\"", text, "\": wants an IPv4 address, or IPv4:port"));
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// The state of one resolver of glibc's, and its end.
class Resolver {
 public:
  absl::Status Open(const std::string& server) {
    if (res_ninit(&state_) != 0)
      return absl::UnavailableError("cannot read the resolver's settings");
    open_ = true;
    state_.retrans = kTimeoutSeconds;
    state_.retry = kAttempts;
    if (server.empty()) return absl::OkStatus();
    absl::StatusOr<sockaddr_in> address = ParseServer(server);
    if (!address.ok()) return address.status();
    state_.nscount = 1;
    state_.nsaddr_list[0] = *address;
    return absl::OkStatus();
  }
  ~Resolver() {
    if (open_) res_nclose(&state_);
  }
  Resolver() = default;
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // NotFound, Unavailable, or the answer.
  absl::StatusOr<std::vector<unsigned char>> Query(const std::string& name) {
    std::vector<unsigned char> answer(kAnswerBytesMax);
    const int size =
        res_nquery(&state_, name.c_str(), ns_c_in, ns_t_srv, answer.data(), kAnswerBytesMax);
    if (size < 0) {
      const bool absent = state_.res_h_errno == HOST_NOT_FOUND || state_.res_h_errno == NO_DATA;
      const std::string why = absl::StrCat(name, ": ", hstrerror(state_.res_h_errno));
      return absent ? absl::NotFoundError(why) : absl::UnavailableError(why);
    }
    answer.resize(std::min(static_cast<size_t>(size), kAnswerBytesMax));
    return answer;
  }

 private:
  struct __res_state state_ {};
  bool open_ = false;
};

struct Record {
  uint16_t priority = 0;
  std::string endpoint;

  friend bool operator<(const Record& a, const Record& b) {
    return std::tie(a.priority, a.endpoint) < std::tie(b.priority, b.endpoint);
  }
};

// Whatever stands in the answer: what is no SRV record, or no good one, is left out.
std::vector<Record> RecordsOf(const std::vector<unsigned char>& answer) {
  std::vector<Record> records;
  ns_msg message;
  if (ns_initparse(answer.data(), static_cast<int>(answer.size()), &message) != 0) return records;
  for (int i = 0; i < ns_msg_count(message, ns_s_an) && records.size() < kRecordsMax; ++i) {
    ns_rr record;
    if (ns_parserr(&message, ns_s_an, i, &record) != 0) break;
    constexpr size_t kFixedBytes = 6;  // priority, weight, port
    if (ns_rr_type(record) != ns_t_srv || ns_rr_rdlen(record) <= kFixedBytes) continue;
    const unsigned char* data = ns_rr_rdata(record);
    std::array<char, NS_MAXDNAME> host{};
    if (ns_name_uncompress(ns_msg_base(message), ns_msg_end(message), data + kFixedBytes,
                           host.data(), host.size()) < 0) {
      continue;
    }
    const uint16_t port = ns_get16(data + 4);
    absl::string_view name = host.data();
    absl::ConsumeSuffix(&name, ".");
    if (!IsName(name) || port == 0) continue;  // "." is the DNS's word for: there is none
    records.push_back({.priority = static_cast<uint16_t>(ns_get16(data)),
                       .endpoint = absl::StrCat(name, ":", port)});
  }
  return records;
}

}  // namespace

std::string SrvTarget::service() const {
  return absl::StrCat(uses_tls ? "_etcd-client-ssl" : "_etcd-client", name.empty() ? "" : "-", name,
                      "._tcp.", domain);
}

bool IsSrvTarget(std::string_view text) {
  return absl::StartsWith(absl::string_view(text.data(), text.size()), kScheme);
}

absl::StatusOr<SrvTarget> ParseSrvTarget(std::string_view text) {
  const absl::string_view whole(text.data(), text.size());
  absl::string_view rest = whole;
  const auto wrong = [whole](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("endpoint \"", whole, "\": ", why));
  };
  absl::ConsumePrefix(&rest, kScheme);
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(rest, absl::MaxSplits('?', 1));
  absl::string_view domain = parts.first;
  absl::ConsumeSuffix(&domain, "/");
  absl::ConsumeSuffix(&domain, ".");
  if (!IsName(domain)) return wrong("wants a domain, srv://example.com");
  SrvTarget target{.domain = std::string(domain)};
  for (absl::string_view option : absl::StrSplit(parts.second, '&', absl::SkipEmpty())) {
    if (absl::ConsumePrefix(&option, "name=") && IsName(option)) {
      target.name = std::string(option);
    } else if (absl::ConsumePrefix(&option, "dns=")) {
      target.dns = std::string(option);
      if (absl::StatusOr<sockaddr_in> server = ParseServer(target.dns); !server.ok()) {
        return wrong(server.status().message());
      }
    } else {
      return wrong("the options are name=NAME and dns=IPv4:PORT");
    }
  }
  return target;
}

absl::StatusOr<std::vector<std::string>> LookupSrv(const SrvTarget& target) {
  Resolver resolver;
  if (absl::Status opened = resolver.Open(target.dns); !opened.ok()) return opened;
  absl::StatusOr<std::vector<unsigned char>> answer = resolver.Query(target.service());
  if (absl::IsNotFound(answer.status()) && !target.uses_tls) {
    const std::string suffix = target.service().substr(std::string_view("_etcd-client").size());
    const std::string over_tls = absl::StrCat("_etcd-client-ssl", suffix);
    if (resolver.Query(over_tls).ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(target.domain, " offers its cluster over TLS only (", over_tls,
                       "), and this client speaks plain text: set ConnectOptions::tls, or add ",
                       target.service()));
    }
  }
  if (!answer.ok()) return answer.status();
  std::vector<Record> records = RecordsOf(*answer);
  std::sort(records.begin(), records.end());
  std::vector<std::string> endpoints;
  for (Record& record : records) {
    if (std::find(endpoints.begin(), endpoints.end(), record.endpoint) == endpoints.end()) {
      endpoints.push_back(std::move(record.endpoint));
    }
  }
  if (endpoints.empty()) {
    return absl::NotFoundError(absl::StrCat(target.service(), ": no usable SRV record"));
  }
  return endpoints;
}

}  // namespace conclave
