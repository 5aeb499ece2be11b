// Fuzzes the gateway's way from an HTTP body to a message, and from a message to JSON.
//
// Input: one byte that picks the method, one for the size of the pieces, then the body. Whatever
// comes, it ends as a message or a status; the pieces make no difference to what is cut out; and
// what was read can be read back from what is written.
#include <vector>

#include "conclave/base/check.h"
#include "conclave/server/http/json_codec.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave::http {
namespace {

constexpr const char* kPaths[] = {"/v3/kv/txn",      "/v3/kv/range",          "/v3/watch",
                                  "/v3/lock/lock",   "/v3/election/proclaim", "/v3/auth/role/grant",
                                  "/v3/lease/grant", "/v3/maintenance/alarm"};
constexpr size_t kObjectBytesMax = 4096;

std::vector<std::string> Cut(std::string_view body, size_t piece_bytes) {
  JsonSplitter splitter;
  std::vector<std::string> objects;
  for (size_t i = 0; i < body.size(); i += piece_bytes) {
    const absl::Status fed = splitter.Feed(body.substr(i, piece_bytes), kObjectBytesMax);
    while (auto object = splitter.Next()) objects.push_back(*std::move(object));
    if (!fed.ok()) break;
  }
  return objects;
}

}  // namespace
}  // namespace conclave::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::http;
  if (size < 2) return 0;
  const GatewayMethod* method = FindGatewayMethod(kPaths[data[0] % std::size(kPaths)]);
  CONCLAVE_CHECK(method != nullptr);
  const std::string_view body(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::vector<std::string> objects = Cut(body, data[1] % 16 + 1);
  CONCLAVE_CHECK(objects == Cut(body, body.size() + 1));
  for (const std::string& object : objects) {
    const auto message = RequestOfJson(*method, object);
    if (!message.ok()) {
      CONCLAVE_CHECK(absl::IsInvalidArgument(message.status()));
      continue;
    }
    GatewayMethod back = *method;
    back.response_type = method->request_type;
    const auto json = JsonOfResponse(back, *message);
    CONCLAVE_CHECK(json.ok(), json.status().ToString());
    CONCLAVE_CHECK(RequestOfJson(*method, *json).ok(), *json);
  }
  (void)JsonOfResponse(*method, std::string(body));
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  const auto seed = [](char method, const std::string& body) {
    return std::string(1, method) + "\x05" + body;
  };
  return {
      seed(0, R"({"compare":[{"key":"Zm9v","target":"VALUE","value":"YmFy"}],"success":)"
              R"([{"request_put":{"key":"YQ==","value":"YQ=="}},{"requestTxn":{"success":[]}}]})"),
      seed(1, R"({"key":"AA==","rangeEnd":"AA==","limit":"5","sort_order":"DESCEND","x":[1,{}]})"),
      seed(2, R"({"create_request":{"key":"Zm9v","filters":["NOPUT",1],"start_revision":-1}} {})"),
      seed(3, R"({"name":"bG9jaw==","lease":"1234567890123"})"),
      seed(4, R"({"leader":{"name":"ZQ==","key":"ZS8x","rev":2,"lease":"3"},"value":null})"),
      seed(5, R"({"name":"r","perm":{"permType":"READWRITE","key":"a2V5"}})"),
      seed(6, R"({"TTL":1e2,"ID":"-5"})"),
      seed(7, std::string("\x0a\x04\x08\x01\x18\x07\x12\x04\x08\x05\x10\x01", 12)),
  };
}
