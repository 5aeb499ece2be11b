// Calls that the server makes itself, for its health pages, say: no client stands behind them, so
// what is refused to clients for who they are or whom they asked is not refused to them. Their ids
// have this bit; the transport gives no such id to anybody else.
#pragma once

#include <cstdint>

#include "conclave/server/node/io.h"

namespace conclave::node {

inline constexpr uint64_t kOwnCallBit = uint64_t{1} << 63;

inline bool IsOwnCall(CallId call) { return (call.value() & kOwnCallBit) != 0; }

}  // namespace conclave::node
