// Calls to methods that nobody serves: UNIMPLEMENTED, with a message that tells a method of the protocol that is not
// served yet from one that does not exist.
#pragma once

#include <grpc/grpc.h>

#include <memory>
#include <vector>

#include "conclave/server/rpc/call_slot.h"
#include "conclave/server/rpc/completion.h"

namespace conclave::rpc {

inline constexpr int kPostedRejects = 4;

// One catch-all slot; it posts itself again when its call is over. On the queue's thread.
class RejectCall final : public Completion {
 public:
  explicit RejectCall(CallHost* host);
  ~RejectCall();
  void Post();
  void Complete(bool ok) override;

 private:
  void Reject();

  CallHost* const host_;
  bool rejecting_ = false;
  grpc_call* call_ = nullptr;
  grpc_call_details details_;
  grpc_metadata_array metadata_;
  int cancelled_ = 0;
};

// "unknown service x", "unknown method y for service x", or what is not served yet.
std::string RejectMessage(std::string_view path);

}  // namespace conclave::rpc
