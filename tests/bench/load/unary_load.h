// Load of unary calls from one thread over one completion queue.
//
// Closed loop: each client starts its next call when the last one has ended. Open loop (rate > 0):
// calls are due at fixed times whatever the server does, a client that is free takes the next one,
// and latency counts from the time it was due; so a stall of the server is not hidden by clients
// that wait for it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <string>

#include "conclave/tests/bench/load/connections.h"
#include "conclave/tests/bench/load/report.h"

namespace conclave::bench {

struct UnaryLoad {
  std::string operation;
  std::string method;                                 // "/etcdserverpb.KV/Put"
  std::function<grpc::ByteBuffer(uint64_t)> request;  // of the n-th call
  int clients = 1;
  uint64_t total = 0;  // calls in all; 0: until `seconds` have passed
  double seconds = 0;
  double rate = 0;  // calls a second; 0: closed loop
};

Report Run(const UnaryLoad& load, Connections* connections);

}  // namespace conclave::bench
