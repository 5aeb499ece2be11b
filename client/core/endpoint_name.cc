#include "conclave/client/core/endpoint_name.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace conclave {

bool WantsTls(std::string_view text) {
  return text.starts_with("https://") || text.starts_with("unixs://");
}

absl::StatusOr<std::string> ParseEndpoint(std::string_view text, bool uses_tls) {
  const absl::string_view whole(text.data(), text.size());
  absl::string_view rest = whole;
  const auto wrong = [whole](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat("endpoint \"", whole, "\": ", why));
  };
  if (absl::ConsumePrefix(&rest, uses_tls ? "unixs://" : "unix://")) {
    if (rest.empty() || absl::StrContains(rest, " ")) return wrong("wants a path, unix:///path");
    return absl::StrCat("unix:", rest);
  }
  absl::ConsumePrefix(&rest, uses_tls ? "https://" : "http://");
  absl::ConsumeSuffix(&rest, "/");
  if (absl::StrContains(rest, "://")) {
    return wrong(uses_tls ? "a client with TLS has https:// and unixs:// only"
                          : "a client without TLS has http:// and unix:// only");
  }
  const size_t colon = rest.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return wrong("wants host:port");
  const absl::string_view host = rest.substr(0, colon);
  if (absl::StrContains(host, ":") && (host.front() != '[' || host.back() != ']')) {
    return wrong("an IPv6 address stands in brackets, [::1]:2379");
  }
  if (absl::StrContains(rest, "/") || absl::StrContains(rest, " ")) return wrong("wants host:port");
  int port = 0;
  if (!absl::SimpleAtoi(rest.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return wrong("the port is not in 1..65535");
  }
  return std::string(rest);
}

}  // namespace conclave
