// Completions: what comes out of a gRPC completion queue.
//
// Every operation that is started on a queue carries a Completion, and the queue's thread calls it when the
// operation is over. Complete runs on that thread only.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>

namespace conclave::rpc {

class Completion : public grpc::internal::CompletionQueueTag {
 public:
  // `ok` is gRPC's success bit of the operation.
  virtual void Complete(bool ok) = 0;

  bool FinalizeResult(void** tag, bool* /*status*/) final {
    *tag = this;
    return true;
  }

  // As the C API wants it.
  void* tag() { return static_cast<grpc::internal::CompletionQueueTag*>(this); }
};

// A completion that calls a member function of its owner: an object with several operations under way has
// one of these for each of them.
template <typename T, void (T::*kHandler)(bool)>
class MemberCompletion final : public Completion {
 public:
  explicit MemberCompletion(T* owner) : owner_(owner) {}
  void Complete(bool ok) override { (owner_->*kHandler)(ok); }

 private:
  T* const owner_;
};

}  // namespace conclave::rpc
