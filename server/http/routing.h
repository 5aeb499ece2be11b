// Where a request of HTTP goes, whichever version of HTTP brought it: past the access policy to a
// page, or to a call of the gateway.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/http/access_policy.h"
#include "conclave/server/http/gateway.h"
#include "conclave/server/http/pages.h"

namespace conclave::http {

// What a port's clients may ask for.
enum class Serves : uint8_t {
  kAll,       // gRPC, and HTTP: pages and gateway
  kGrpcOnly,  // --listen-client-urls beside --listen-client-http-urls
  kHttpOnly,  // --listen-client-http-urls
  kMetrics,   // --listen-metrics-urls: some pages
};
inline bool ServesGrpc(Serves serves) {
  return serves == Serves::kAll || serves == Serves::kGrpcOnly;
}
inline bool ServesHttp(Serves serves) { return serves != Serves::kGrpcOnly; }

// Names and values of header fields, in their order; the names as HTTP/1.1 spells them.
using Fields = std::vector<std::pair<std::string, std::string>>;

// A request without its body. The views live during the call that takes it.
struct RequestHead {
  std::string_view method;  // "GET"
  std::string_view target;  // "/health?serializable=true"
  std::string_view host;    // of Host, or of :authority; with its port
  bool is_tls = false;
  // The value of a field, whose name is in lower case; "" if it is not there.
  std::function<std::string_view(std::string_view)> field;
};

// A call of the gateway.
struct GatewayTarget {
  const GatewayMethod* method = nullptr;
  GatewayCall::Metadata metadata;
  std::optional<Duration> timeout;
};
struct PageTarget {};

struct Routed {
  std::variant<Response, PageTarget, GatewayTarget> to;
  Fields cors;  // belong to every answer
};

// `is_upgrade`: to a WebSocket.
Routed Route(const RequestHead& head, Serves serves, const AccessPolicy& access, bool is_upgrade);

// An error in the gateway's shape; `code` is gRPC's.
Response GatewayError(int status, int code, std::string_view text);
// Whether a value may be passed on in metadata.
bool IsPrintable(std::string_view text);

// The header fields of a whole answer, and of one in many parts.
Fields FieldsOf(const Response& response);
Fields StreamFields();

}  // namespace conclave::http
