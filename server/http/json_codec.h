// The JSON gateway's methods, and their messages between JSON and protobuf.
//
// The mapping is protobuf's own, with the choices of etcd's gateway: the names of the .proto files
// are written and lowerCamelCase is read as well, 64-bit numbers are written as strings, bytes are
// base64, what has its default value is left out, and unknown fields are ignored.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave::http {

// Objects and arrays within each other; a message of the protocol has a few.
inline constexpr size_t kJsonDepthMax = 256;

struct GatewayMethod {
  std::string path;          // "/etcdserverpb.KV/Range"
  std::string request_type;  // for protobuf's type resolver
  std::string response_type;
  bool client_streams = false;
  bool server_streams = false;
};

// "/v3/kv/range" and "/v3beta/kv/range". Null if the gateway has no such path.
const GatewayMethod* FindGatewayMethod(std::string_view path);

// InvalidArgument: this is no JSON, or not of this type.
absl::StatusOr<std::string> RequestOfJson(const GatewayMethod& method, std::string_view json);
absl::StatusOr<std::string> JsonOfResponse(const GatewayMethod& method, const std::string& message);

// Cuts a stream of JSON objects, which come in pieces, one behind the other, into the objects. Only
// the ends of objects are looked for; whether one is JSON shows when it is read.
class JsonSplitter {
 public:
  // InvalidArgument: something that is not an object, or nested too deeply; ResourceExhausted: an
  // object of more than `object_bytes_max`. Then nothing more may be fed.
  absl::Status Feed(std::string_view piece, size_t object_bytes_max);
  std::optional<std::string> Next();
  bool has_next() const { return !objects_.empty(); }
  // An object has begun and not ended.
  bool in_object() const { return !part_.empty(); }
  size_t bytes() const { return bytes_; }

 private:
  std::deque<std::string> objects_;
  std::string part_;
  size_t bytes_ = 0;  // of all above
  size_t depth_ = 0;
  bool in_text_ = false;
  bool escaped_ = false;
};

// A JSON string, with its quotes.
std::string JsonText(std::string_view text);

}  // namespace conclave::http
