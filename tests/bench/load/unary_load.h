// Load of unary calls from one thread: nghttp2 over one epoll.
//
// Not by gRPC's own client: at 30 to 45 us a call it would be slower than the servers, and the
// table would show its speed instead of theirs.
//
// Closed loop: each client starts its next call when the last one has ended. Open loop (rate > 0):
// calls are due at fixed times whatever the server does, a client that is free takes the next one,
// and latency counts from the time it was due; so a stall of the server is not hidden by clients
// that wait for it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "conclave/tests/bench/load/report.h"

namespace conclave::bench {

struct UnaryLoad {
  std::string operation;
  std::string method;                            // "/etcdserverpb.KV/Put"
  std::function<std::string(uint64_t)> request;  // the message of the n-th call
  std::vector<std::string> endpoints;            // "host:port"; connections are spread over them
  int connections = 1;
  int clients = 1;
  uint64_t total = 0;  // calls in all; 0: until `seconds` have passed
  double seconds = 0;
  double rate = 0;  // calls a second; 0: closed loop
};

// A connection that cannot be made, or that breaks, ends the run with an error.
Report Run(const UnaryLoad& load);

}  // namespace conclave::bench
