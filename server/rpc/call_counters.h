// What the client port has counted: written by one queue thread without locks, read by anybody.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace conclave::rpc {

inline constexpr size_t kStatusCodes = 17;  // OK ... UNAUTHENTICATED
inline constexpr size_t kHandlingBuckets = 11;
// The upper bounds in seconds of grpc_server_handling_seconds; etcd's, which are Prometheus'
// defaults.
inline constexpr std::array<double, kHandlingBuckets> kHandlingBounds = {
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

// A number with a single writer: adding is a load and a store, no locked instruction.
class Counter {
 public:
  void Add(uint64_t count = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Of one method on one queue.
struct MethodCounters {
  Counter started;
  std::array<Counter, kStatusCodes> handled;
  Counter received_messages;
  Counter sent_messages;
  std::array<Counter, kHandlingBuckets + 1> handling;  // not cumulative; the last has no bound
  Counter handling_nanoseconds;
};

// Of one queue; `methods` is as long as AllMethods().
struct QueueCounters {
  std::unique_ptr<MethodCounters[]> methods;
  Counter received_bytes;
  Counter sent_bytes;
  Counter slow_requests;
  Counter bursts;
  Counter events;
};

}  // namespace conclave::rpc
