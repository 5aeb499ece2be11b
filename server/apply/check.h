// Which requests are refused as they stand, and which way the others take: a function of the
// request alone, with etcd's errors in etcd's order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/method.h"

namespace conclave::apply {

struct RequestLimits {
  size_t request_bytes_max = 3 * 512 * 1024;  // --max-request-bytes; for what goes into the log
  size_t txn_ops_max = 128;                   // --max-txn-ops
};

// The way of a request through the server.
enum class Route : uint8_t {
  kPropose,    // through the log, then StateMachine::Apply on every member
  kRead,       // StateMachine::Read, after a read round has confirmed the leader
  kReadLocal,  // StateMachine::Read at once
  kLeader,     // StateMachine::Read on the leader only, after a read round
  kNode,       // the node's own: Status, MoveLeader, Defragment, changes of membership
  kPassword,   // has a password to be hashed or compared first; then through the log
};

struct RequestCheck {
  const wire::Error* error = nullptr;  // null: take `route`
  Route route = Route::kPropose;
};

// `request` is the encoded message, without headroom. Every request that goes into the log or to
// Read must have passed it.
[[nodiscard]] RequestCheck CheckRequest(wire::Method method, std::string_view request,
                                        const RequestLimits& limits);

}  // namespace conclave::apply
