// The pages of the HTTP side: /health, /livez, /readyz, /version, /metrics, /debug/.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/server/http/backend.h"

namespace conclave::http {

struct Request {
  std::string method;  // "GET"
  std::string target;  // "/health?serializable=true"
};

struct Response {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::string allow{};  // of a 405
  bool grpc = false;    // the answer of a gRPC call, which a header says
};

// Answers one request; `done` is called exactly once, on any thread.
void Answer(const Request& request, Backend* backend, std::function<void(Response)> done);

// "a=1&b=2&a=3" with percent-encoding undone. Parts without '=' have an empty value.
std::multimap<std::string, std::string> ParseQuery(std::string_view query);

}  // namespace conclave::http
