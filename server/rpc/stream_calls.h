// Streams: Watch and LeaseKeepAlive. Messages go to the core one by one as they come, and the core's messages go out in
// order, one write at a time, as gRPC wants it.
//
// How much may wait here is the core's business: it gets the charge of every message back (StreamSent) when gRPC has
// taken it, and holds back what is above its limit. gRPC takes a message when it fits into the connection's write
// buffer and the client's flow-control window; so a client that does not read is noticed.
#pragma once

#include <grpc/grpc.h>

#include <deque>
#include <memory>
#include <vector>

#include "conclave/server/rpc/call_slot.h"
#include "conclave/server/rpc/completion.h"

namespace conclave::rpc {

inline constexpr int kPostedStreams = 8;
// Credit is given back in lumps of this size, and whenever nothing more waits.
inline constexpr uint64_t kCreditBytes = 64 * 1024;

class StreamCall;

// All slots of one streaming method on one queue. On the queue's thread.
class StreamMethod {
 public:
  StreamMethod(CallHost* host, const MethodEntry* method, void* registered);
  ~StreamMethod();

  void PostFirst();
  // Ends what is still open. The core must not send any more.
  void EndAllStopped();

 private:
  friend class StreamCall;
  void PostOne();

  CallHost* const host_;
  const MethodEntry* const method_;
  void* const registered_;
  MethodCounters* const counters_;
  std::vector<std::unique_ptr<StreamCall>> calls_;
  std::vector<StreamCall*> free_;
};

// One slot; all of it on the queue's thread.
class StreamCall final : public CallSlot {
 public:
  explicit StreamCall(StreamMethod* pool);
  ~StreamCall();

  // Takes one effect of the core. Nothing moves before Flush: so the effects of a whole turn are known when the
  // first of them is written.
  void Add(node::StreamEffect effect);
  void Flush();

 private:
  friend class StreamMethod;

  void Post();
  void OnArrived(bool ok);
  void StartRead();
  void OnRead(bool ok);
  void StartWrite();
  void OnWritten(bool ok);
  void OnClosed(bool ok);
  void SendStatus();
  void OnStatusSent(bool ok);
  void GiveCredit();
  void ReleaseIfOver();
  void End(int code, std::string_view message);

  StreamMethod* const pool_;
  grpc_call* call_ = nullptr;
  gpr_timespec deadline_{};
  grpc_metadata_array metadata_;
  grpc_byte_buffer* payload_ = nullptr;  // of a server stream: its only request
  grpc_byte_buffer* received_ = nullptr;
  int cancelled_ = 0;

  bool open_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool headers_sent_ = false;
  bool half_closed_ = false;
  bool closed_ = false;       // gRPC says that the call is over
  bool core_done_ = false;    // the core has finished the stream
  bool status_sent_ = false;  // or under way
  bool sending_status_ = false;
  std::unique_ptr<node::CallError> status_;
  std::deque<node::StreamEffect> outbox_;
  uint64_t written_bytes_ = 0;  // of the write under way
  uint64_t written_charge_ = 0;
  uint64_t credit_ = 0;

  MemberCompletion<StreamCall, &StreamCall::OnArrived> on_arrived_{this};
  MemberCompletion<StreamCall, &StreamCall::OnRead> on_read_{this};
  MemberCompletion<StreamCall, &StreamCall::OnWritten> on_written_{this};
  MemberCompletion<StreamCall, &StreamCall::OnClosed> on_closed_{this};
  MemberCompletion<StreamCall, &StreamCall::OnStatusSent> on_status_sent_{this};
};

}  // namespace conclave::rpc
