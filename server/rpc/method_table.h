// Every method of the protocol's services, and who answers it.
//
// One table for three readers: the client port registers what is served, its catch-all tells a
// method that exists but is not served here from one that never existed, and the metrics start all
// of them at zero.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "conclave/server/node/io.h"

namespace conclave::rpc {

enum class CallType : uint8_t { kUnary, kServerStream, kBidiStream };

enum class Served : uint8_t {
  kNodeUnary,         // `method` says which
  kNodeStream,        // `stream` says which
  kNodeServerStream,  // likewise; the client sends one message
  kDoor,              // by TransportOptions::door
  kHealthCheck,       // by the transport itself
  kHealthWatch,
};

struct MethodEntry {
  const char* path;  // "/package.Service/Method", as on the wire
  CallType type;
  Served served;
  node::Method method{};
  node::StreamKind stream{};
  bool hot = false;  // many calls are kept posted

  std::string_view service() const;  // "package.Service"
  std::string_view name() const;     // "Method"
};

std::span<const MethodEntry> AllMethods();

// Null if there is no such method.
const MethodEntry* FindMethod(std::string_view path);

// Why a call to `path` is UNIMPLEMENTED: not served here (there is no door), or unknown.
std::string RejectMessage(std::string_view path);

}  // namespace conclave::rpc
