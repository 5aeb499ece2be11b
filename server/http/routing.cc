#include "conclave/server/http/routing.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/timeout.h"

namespace conclave::http {
namespace {

using wire::Code;

constexpr char kJson[] = "application/json";
// What the server reads of a call's metadata; nothing else is passed on.
constexpr std::pair<std::string_view, const char*> kForwarded[] = {
    {"authorization", "authorization"},
    {"token", "token"},
    {"grpc-metadata-authorization", "authorization"},
    {"grpc-metadata-token", "token"},
    {"grpc-metadata-hasleader", "hasleader"},
    {"grpc-metadata-client-api-version", "client-api-version"},
};
constexpr std::string_view kBearer = "bearer ";

// The host of a Host header: without the port, and without the brackets of an IPv6 address.
std::string_view HostOf(std::string_view header) {
  if (header.starts_with('[')) {
    return header.substr(1, header.find(']') == header.npos ? header.npos : header.find(']') - 1);
  }
  const size_t colon = header.rfind(':');
  return header.find(':') == colon ? header.substr(0, colon) : header;
}

bool IsMetricsPath(std::string_view path) {
  return path == "/metrics" || path == "/health" || path == "/livez" || path == "/readyz" ||
         path.starts_with("/livez/") || path.starts_with("/readyz/");
}

Fields CorsFields(const RequestHead& head, const AccessPolicy& access) {
  std::string_view origin = "*";
  if (!access.origins.contains(origin)) {
    origin = head.field("origin");
    if (origin.empty() || !access.origins.contains(origin)) return {};
  }
  return {{"Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"},
          {"Access-Control-Allow-Origin", std::string(origin)},
          {"Access-Control-Allow-Headers", "accept, content-type, authorization"}};
}

// Before anything of the request is looked at.
std::optional<Response> RefuseByPolicy(const RequestHead& head, const AccessPolicy& access) {
  const std::string_view host = HostOf(head.host);
  // With TLS the certificate has settled whom the client meant.
  if (head.is_tls || access.hosts.contains("*") || access.hosts.contains(host)) return std::nullopt;
  Response response;
  response.status = 421;
  response.body =
      absl::StrCat("The host of the request, ", JsonText(host),
                   ", is none of this server's. If it should be, name it in --host-whitelist.\n");
  return response;
}

std::variant<Response, PageTarget, GatewayTarget> RouteToGateway(const RequestHead& head,
                                                                 const GatewayMethod* method,
                                                                 bool is_upgrade) {
  constexpr int kInvalidArgument = static_cast<int>(Code::kInvalidArgument);
  if (method == nullptr) {
    return GatewayError(404, static_cast<int>(Code::kNotFound), "Not Found");
  }
  if (head.method != "POST" && !is_upgrade) {
    return GatewayError(405, static_cast<int>(Code::kUnimplemented), "Method Not Allowed");
  }
  GatewayTarget target;
  target.method = method;
  for (const auto& [field, name] : kForwarded) {
    std::string_view value = head.field(field);
    if (value.empty()) continue;
    if (std::string_view(name) == "authorization" &&
        absl::StartsWithIgnoreCase({value.data(), value.size()},
                                   {kBearer.data(), kBearer.size()})) {
      value.remove_prefix(kBearer.size());
    }
    if (!IsPrintable(value)) {
      return GatewayError(400, kInvalidArgument,
                          absl::StrCat("the header ", std::string(field), " is not printable"));
    }
    target.metadata.emplace_back(name, value);
  }
  if (const std::string_view text = head.field("grpc-timeout"); !text.empty()) {
    target.timeout = wire::ParseTimeout(text);
    if (!target.timeout.has_value()) {
      return GatewayError(400, kInvalidArgument, "invalid grpc-timeout");
    }
  }
  return target;
}

}  // namespace

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

Response GatewayError(int status, int code, std::string_view text) {
  Response response;
  response.status = status;
  response.content_type = kJson;
  response.body = ErrorBody(code, text);
  return response;
}

Routed Route(const RequestHead& head, Serves serves, const AccessPolicy& access, bool is_upgrade) {
  Routed routed;
  if (serves != Serves::kMetrics) {
    if (std::optional<Response> refused = RefuseByPolicy(head, access)) {
      routed.to = *std::move(refused);
      return routed;
    }
    routed.cors = CorsFields(head, access);
    if (head.method == "OPTIONS") {
      Response response;
      response.content_type.clear();
      routed.to = std::move(response);
      return routed;
    }
  }
  const std::string_view path = head.target.substr(0, head.target.find('?'));
  if (serves == Serves::kMetrics && !IsMetricsPath(path)) {
    Response response;
    response.status = 404;
    response.body = "404 page not found\n";
    routed.to = std::move(response);
  } else if (path.starts_with("/v3/") || path.starts_with("/v3beta/")) {
    routed.to = RouteToGateway(head, FindGatewayMethod(path), is_upgrade);
  } else {
    routed.to = PageTarget();
  }
  return routed;
}

Fields FieldsOf(const Response& response) {
  Fields fields;
  if (!response.content_type.empty()) fields.emplace_back("Content-Type", response.content_type);
  fields.emplace_back("Content-Length", absl::StrCat(response.body.size()));
  if (!response.allow.empty()) fields.emplace_back("Allow", response.allow);
  if (response.grpc) fields.emplace_back("Grpc-Metadata-Content-Type", "application/grpc");
  if (response.status >= 400) fields.emplace_back("X-Content-Type-Options", "nosniff");
  return fields;
}

Fields StreamFields() {
  return {{"Content-Type", kJson}, {"Grpc-Metadata-Content-Type", "application/grpc"}};
}

}  // namespace conclave::http
