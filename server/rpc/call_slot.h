// What unary calls and streams have in common: where they live, and the ids by which the core names them.
//
// A slot is allocated once and used for one call after the other, so a call costs no allocation of ours. Its
// CallId is its address with a generation in the bits that addresses do not use: the way back from a reply to
// its call is one cast, and a reply to a call that is over (a defect of the core) is caught.
#pragma once

#include <grpc/grpc.h>
#include <grpc/slice.h>

#include <cstdint>
#include <string_view>

#include "conclave/base/check.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/rpc/method_table.h"
#include "conclave/server/rpc/queue.h"

namespace conclave::rpc {

// What every slot of a queue needs.
struct CallHost {
  Queue* queue = nullptr;
  grpc_server* server = nullptr;
  bool handling_histograms = false;
  bool stopping = false;  // calls that still arrive are answered `etcdserver: server stopped`
};

inline constexpr std::string_view kServerStopped = "etcdserver: server stopped";

inline constexpr int kAddressBits = 48;
inline constexpr uint64_t kGenerationMask = (uint64_t{1} << 15) - 1;  // kLocalCallBit stays clear

class CallSlot {
 public:
  CallSlot(CallHost* host, const MethodEntry* method, MethodCounters* counters)
      : host_(host), method_(method), counters_(counters) {}

  node::CallId id() const {
    const uint64_t address = reinterpret_cast<uint64_t>(this);
    CONCLAVE_CHECK(address >> kAddressBits == 0);
    return node::CallId(address | generation_ << kAddressBits);
  }
  // The slot that `id` names.
  static CallSlot* Find(node::CallId id) {
    auto* slot = reinterpret_cast<CallSlot*>(id.value() & ((uint64_t{1} << kAddressBits) - 1));
    CONCLAVE_CHECK(slot->generation_ == id.value() >> kAddressBits, "reply to a call that is over");
    return slot;
  }

  Queue* queue() const { return host_->queue; }
  const MethodEntry& method() const { return *method_; }

 protected:
  ~CallSlot() = default;
  void NextGeneration() { generation_ = (generation_ + 1) & kGenerationMask; }
  void CountHandled(int code) {
    counters_->handled[static_cast<size_t>(code) < kStatusCodes ? static_cast<size_t>(code) : 2]
        .Add();
  }

  CallHost* const host_;
  const MethodEntry* const method_;
  MethodCounters* const counters_;

 private:
  uint64_t generation_ = 0;
};

inline grpc_slice CopySlice(std::string_view text) {
  return grpc_slice_from_copied_buffer(text.data(), text.size());
}

}  // namespace conclave::rpc
