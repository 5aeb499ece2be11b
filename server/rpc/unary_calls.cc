#include "conclave/server/rpc/unary_calls.h"

#include <algorithm>
#include <utility>

#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {

UnaryMethod::UnaryMethod(CallHost* host, const MethodEntry* method, void* registered)
    : host_(host),
      method_(method),
      registered_(registered),
      counters_(&host->queue->counters().methods[method - AllMethods().data()]) {}

UnaryMethod::~UnaryMethod() = default;

void UnaryMethod::PostFirst() {
  const int count = method_->hot ? kPostedHot : kPostedCold;
  for (int i = 0; i < count; ++i) PostOne();
}

void UnaryMethod::PostOne() {
  if (free_.empty()) {
    calls_.push_back(std::make_unique<UnaryCall>(this));
    free_.push_back(calls_.back().get());
  }
  UnaryCall* call = free_.back();
  free_.pop_back();
  call->Post();
}

void UnaryMethod::AnswerAllStopped() {
  for (const auto& call : calls_) {
    if (call->state_.load(std::memory_order_acquire) != UnaryCall::State::kAtCore) continue;
    node::Reply reply;
    reply.error = std::make_unique<node::CallError>(
        node::CallError{GRPC_STATUS_UNAVAILABLE, std::string(kServerStopped)});
    call->Answer(reply);
  }
}

void UnaryMethod::WatchOldCalls(Instant now) {
  for (const auto& call : calls_) {
    if (call->state_.load(std::memory_order_acquire) == UnaryCall::State::kAtCore &&
        now - call->arrived_ >= kWatchAfter) {
      call->Watch();
    }
  }
}

UnaryCall::UnaryCall(UnaryMethod* pool)
    : CallSlot(pool->host_, pool->method_, pool->counters_), pool_(pool) {
  grpc_metadata_array_init(&metadata_);
}

UnaryCall::~UnaryCall() { grpc_metadata_array_destroy(&metadata_); }

void UnaryCall::Post() {
  state_.store(State::kPosted, std::memory_order_relaxed);
  metadata_.count = 0;
  payload_ = nullptr;
  const grpc_call_error error = grpc_server_request_registered_call(
      host_->server, pool_->registered_, &call_, &deadline_, &metadata_, &payload_,
      host_->queue->cq(), host_->queue->cq(), on_arrived_.tag());
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "request_registered_call: ", static_cast<int>(error));
}

void UnaryCall::OnArrived(bool ok) {
  if (!ok) {  // the server shuts down
    state_.store(State::kFree, std::memory_order_relaxed);
    return;
  }
  pool_->PostOne();
  NextGeneration();
  arrived_ = Now();
  operations_ = 1;  // the answer
  close_claimed_.store(false, std::memory_order_relaxed);
  counters_->started.Add();
  state_.store(State::kAtCore, std::memory_order_release);

  node::Reply reply;
  if (payload_ == nullptr) {
    // Over the limit, or broken off: gRPC has already ended the call with its own status.
    reply.error = std::make_unique<node::CallError>(
        node::CallError{GRPC_STATUS_RESOURCE_EXHAUSTED, "received message larger than max"});
    return Answer(reply);
  }
  if (host_->stopping) {
    grpc_byte_buffer_destroy(std::exchange(payload_, nullptr));
    reply.error = std::make_unique<node::CallError>(
        node::CallError{GRPC_STATUS_UNAVAILABLE, std::string(kServerStopped)});
    return Answer(reply);
  }
  counters_->received_messages.Add();
  Bytes request = TakeMessage(std::exchange(payload_, nullptr), node::kRequestHeadroom);
  host_->queue->counters().received_bytes.Add(request.size() - node::kRequestHeadroom);
  if (method_->served == Served::kHealthCheck) {
    // Only the server as a whole ("") is known; its HealthCheckResponse says SERVING.
    if (request.size() == node::kRequestHeadroom) {
      reply.body = Bytes::Copy("\x08\x01");
    } else {
      reply.error = std::make_unique<node::CallError>(
          node::CallError{GRPC_STATUS_NOT_FOUND, "unknown service"});
    }
    return Answer(reply);
  }
  host_->queue->inputs().emplace_back(
      node::UnaryCall{id(), method_->method, std::move(request)});
}

void UnaryCall::Answer(const node::Reply& reply) {
  State expected = State::kAtCore;
  CONCLAVE_CHECK(state_.compare_exchange_strong(expected, State::kAnswering), "answered twice");
  grpc_op operations[4] = {};
  size_t count = 0;
  operations[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  grpc_byte_buffer* message = nullptr;
  status_ = reply.error == nullptr ? GRPC_STATUS_OK : reply.error->code;
  sent_bytes_ = 0;
  if (reply.error == nullptr) {
    message = MakeMessage(reply.body, {});
    sent_bytes_ = reply.body.size();
    operations[count].op = GRPC_OP_SEND_MESSAGE;
    operations[count++].data.send_message.send_message = message;
  }
  grpc_slice details = reply.error == nullptr ? grpc_empty_slice() : CopySlice(reply.error->message);
  grpc_op& status = operations[count++];
  status.op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  status.data.send_status_from_server.status = static_cast<grpc_status_code>(status_);
  status.data.send_status_from_server.status_details =
      reply.error == nullptr ? nullptr : &details;
  if (!close_claimed_.exchange(true, std::memory_order_acq_rel)) {
    operations[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    operations[count++].data.recv_close_on_server.cancelled = &cancelled_;
  }
  const grpc_call_error error =
      grpc_call_start_batch(call_, operations, count, on_over_.tag(), nullptr);
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
  // gRPC has taken the slices out of the buffer; the husk is ours.
  if (message != nullptr) grpc_byte_buffer_destroy(message);
  grpc_slice_unref(details);
}

void UnaryCall::OnOver(bool /*ok*/) {
  CountHandled(status_);
  if (status_ == GRPC_STATUS_OK) counters_->sent_messages.Add();
  host_->queue->counters().sent_bytes.Add(sent_bytes_);
  if (host_->handling_histograms) {
    const Duration taken = Now() - arrived_;
    const double seconds = std::chrono::duration<double>(taken).count();
    const auto bound = std::lower_bound(kHandlingBounds.begin(), kHandlingBounds.end(), seconds);
    counters_->handling[static_cast<size_t>(bound - kHandlingBounds.begin())].Add();
    counters_->handling_nanoseconds.Add(static_cast<uint64_t>(taken.count()));
  }
  if (--operations_ == 0) Release();
}

void UnaryCall::Watch() {
  if (close_claimed_.exchange(true, std::memory_order_acq_rel)) return;
  ++operations_;
  grpc_op operation = {};
  operation.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  operation.data.recv_close_on_server.cancelled = &cancelled_;
  const grpc_call_error error =
      grpc_call_start_batch(call_, &operation, 1, on_cancelled_.tag(), nullptr);
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
}

void UnaryCall::OnCancelled(bool /*ok*/) {
  if (cancelled_ != 0 && state_.load(std::memory_order_acquire) == State::kAtCore) {
    host_->queue->inputs().emplace_back(node::CallCancelled{id()});
  }
  if (--operations_ == 0) Release();
}

void UnaryCall::Release() {
  grpc_call_unref(std::exchange(call_, nullptr));
  state_.store(State::kFree, std::memory_order_relaxed);
  pool_->free_.push_back(this);
}

}  // namespace conclave::rpc
