// --help's group "HTTP": the JSON gateway and who may use it from a browser.
#include <functional>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

// Names separated by commas; an empty value leaves the default.
template <std::set<std::string, std::less<>> http::AccessPolicy::*kField>
absl::Status SetNames(std::string_view value, Config* config) {
  std::set<std::string, std::less<>> names;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(value.data(), value.size()), ',')) {
    const absl::string_view name = absl::StripAsciiWhitespace(part);
    if (!name.empty()) names.emplace(name);
  }
  if (!names.empty()) config->http_access.*kField = std::move(names);
  return absl::OkStatus();
}

const FlagEntry kFlags[] = {
    Works("listen-client-http-urls", kList, "",
          "addresses for HTTP alone; then --listen-client-urls serves gRPC alone",
          SetUrls<&Config::listen_client_http_urls>),
    Works("cors", kText, "*", "origins whose pages may call this server; * is all",
          SetNames<&http::AccessPolicy::origins>),
    Works("host-whitelist", kText, "*",
          "hosts that requests without TLS may name as theirs; * is all",
          SetNames<&http::AccessPolicy::hosts>),
};

}  // namespace

FlagGroup HttpFlags() { return {"HTTP", kFlags}; }

}  // namespace conclave::app
