#include "conclave/client/core/endpoint_name.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace conclave {

absl::StatusOr<std::string> ParseEndpoint(std::string_view text) {
  const absl::string_view whole(text.data(), text.size());
  absl::string_view rest = whole;
  const auto wrong = [whole](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat("endpoint \"", whole, "\": ", why));
  };
  absl::ConsumePrefix(&rest, "http://");
  absl::ConsumeSuffix(&rest, "/");
  if (absl::StrContains(rest, "://")) return wrong("only http:// is known");
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
