#include "conclave/server/rpc/stream_calls.h"

#include <utility>

#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {
namespace {

bool HasMetadata(const grpc_metadata_array& metadata, std::string_view key,
                 std::string_view value) {
  for (size_t i = 0; i < metadata.count; ++i) {
    if (SliceView(metadata.metadata[i].key) == key && SliceView(metadata.metadata[i].value) == value) {
      return true;
    }
  }
  return false;
}

void StartBatch(grpc_call* call, const grpc_op* operations, size_t count, Completion* completion) {
  const grpc_call_error error =
      grpc_call_start_batch(call, operations, count, completion->tag(), nullptr);
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
}

}  // namespace

StreamMethod::StreamMethod(CallHost* host, const MethodEntry* method, void* registered)
    : host_(host),
      method_(method),
      registered_(registered),
      counters_(&host->queue->counters().methods[method - AllMethods().data()]) {}

StreamMethod::~StreamMethod() = default;

void StreamMethod::PostFirst() {
  for (int i = 0; i < kPostedStreams; ++i) PostOne();
}

void StreamMethod::PostOne() {
  if (free_.empty()) {
    calls_.push_back(std::make_unique<StreamCall>(this));
    free_.push_back(calls_.back().get());
  }
  StreamCall* call = free_.back();
  free_.pop_back();
  call->Post();
}

void StreamMethod::EndAllStopped() {
  for (const auto& call : calls_) {
    if (call->open_ && !call->core_done_) call->End(GRPC_STATUS_UNAVAILABLE, kServerStopped);
  }
}

StreamCall::StreamCall(StreamMethod* pool)
    : CallSlot(pool->host_, pool->method_, pool->counters_), pool_(pool) {
  grpc_metadata_array_init(&metadata_);
}

StreamCall::~StreamCall() { grpc_metadata_array_destroy(&metadata_); }

void StreamCall::Post() {
  metadata_.count = 0;
  const bool has_payload = method_->type == CallType::kServerStream;
  const grpc_call_error error = grpc_server_request_registered_call(
      host_->server, pool_->registered_, &call_, &deadline_, &metadata_,
      has_payload ? &payload_ : nullptr, host_->queue->cq(), host_->queue->cq(), on_arrived_.tag());
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "request_registered_call: ", static_cast<int>(error));
}

void StreamCall::OnArrived(bool ok) {
  if (!ok) return;  // the server shuts down
  pool_->PostOne();
  NextGeneration();
  open_ = true;
  headers_sent_ = half_closed_ = closed_ = core_done_ = status_sent_ = false;
  status_.reset();
  credit_ = 0;
  cancelled_ = 0;
  counters_->started.Add();

  grpc_op operation = {};
  operation.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  operation.data.recv_close_on_server.cancelled = &cancelled_;
  StartBatch(call_, &operation, 1, &on_closed_);

  if (host_->stopping) return End(GRPC_STATUS_UNAVAILABLE, kServerStopped);
  if (method_->served == Served::kNodeStream) {
    host_->queue->inputs().emplace_back(node::StreamOpened{
        id(), method_->stream, HasMetadata(metadata_, "hasleader", "true")});
    StartRead();
    return;
  }
  // grpc.health.v1.Health/Watch. Its only message says SERVING, or SERVICE_UNKNOWN of any service but the server as a
  // whole; the stream then stays open until one of both goes away.
  const Bytes request = TakeMessage(std::exchange(payload_, nullptr), 0);
  node::StreamEffect effect;
  effect.prefix = Bytes::Copy(request.empty() ? "\x08\x01" : "\x08\x03");
  Add(std::move(effect));
  Flush();
}

void StreamCall::StartRead() {
  reading_ = true;
  received_ = nullptr;
  grpc_op operation = {};
  operation.op = GRPC_OP_RECV_MESSAGE;
  operation.data.recv_message.recv_message = &received_;
  StartBatch(call_, &operation, 1, &on_read_);
}

void StreamCall::OnRead(bool ok) {
  reading_ = false;
  grpc_byte_buffer* received = std::exchange(received_, nullptr);
  if (!ok || received == nullptr) {
    if (received != nullptr) grpc_byte_buffer_destroy(received);
    half_closed_ = true;
    if (!core_done_ && !closed_) host_->queue->inputs().emplace_back(node::StreamHalfClosed{id()});
    return ReleaseIfOver();
  }
  Bytes message = TakeMessage(received, 0);
  counters_->received_messages.Add();
  host_->queue->counters().received_bytes.Add(message.size());
  if (!core_done_ && !closed_) {
    host_->queue->inputs().emplace_back(node::StreamMessage{id(), std::move(message)});
  }
  if (!closed_) {
    StartRead();
  } else {
    ReleaseIfOver();
  }
}

void StreamCall::Add(node::StreamEffect effect) {
  CONCLAVE_CHECK(!core_done_, "stream effect after its finish");
  if (effect.finish) {
    core_done_ = true;
    status_ = std::move(effect.error);
    return;
  }
  if (!closed_) outbox_.push_back(std::move(effect));
}

void StreamCall::Flush() {
  if (!writing_ && !closed_) {
    if (!outbox_.empty()) {
      StartWrite();
    } else if (core_done_ && !status_sent_) {
      SendStatus();
    }
  }
  ReleaseIfOver();
}

void StreamCall::StartWrite() {
  writing_ = true;
  node::StreamEffect effect = std::move(outbox_.front());
  outbox_.pop_front();
  written_bytes_ = effect.prefix.size() + effect.shared.size();
  written_charge_ = effect.charge;
  grpc_op operations[2] = {};
  size_t count = 0;
  if (!headers_sent_) {
    headers_sent_ = true;
    operations[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  }
  grpc_byte_buffer* message = MakeMessage(effect.prefix, effect.shared);
  operations[count].op = GRPC_OP_SEND_MESSAGE;
  // More is coming: fill the connection's buffer first, then write. Not with the headers: they would wait for the write
  // that this message holds back, and the batch for both.
  if (!outbox_.empty() && count == 0) operations[count].flags = GRPC_WRITE_BUFFER_HINT;
  operations[count++].data.send_message.send_message = message;
  StartBatch(call_, operations, count, &on_written_);
  grpc_byte_buffer_destroy(message);
}

void StreamCall::OnWritten(bool ok) {
  writing_ = false;
  if (ok) {
    counters_->sent_messages.Add();
    host_->queue->counters().sent_bytes.Add(written_bytes_);
  }
  credit_ += written_charge_;
  if (closed_) outbox_.clear();
  if (outbox_.empty() || credit_ >= kCreditBytes) GiveCredit();
  Flush();
}

void StreamCall::GiveCredit() {
  if (credit_ > 0 && !core_done_ && !closed_) {
    host_->queue->inputs().emplace_back(node::StreamSent{id(), credit_});
  }
  credit_ = 0;
}

void StreamCall::OnClosed(bool /*ok*/) {
  closed_ = true;
  if (!writing_) outbox_.clear();
  if (!core_done_) {
    if (method_->served == Served::kNodeStream) {
      host_->queue->inputs().emplace_back(node::StreamClosed{id()});
    } else {
      core_done_ = true;
    }
  }
  ReleaseIfOver();
}

void StreamCall::End(int code, std::string_view message) {
  node::StreamEffect effect;
  effect.finish = true;
  effect.error = std::make_unique<node::CallError>(node::CallError{code, std::string(message)});
  Add(std::move(effect));
  Flush();
}

void StreamCall::SendStatus() {
  status_sent_ = sending_status_ = true;
  grpc_op operations[2] = {};
  size_t count = 0;
  if (!headers_sent_) {
    headers_sent_ = true;
    operations[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  }
  grpc_slice details = status_ == nullptr ? grpc_empty_slice() : CopySlice(status_->message);
  grpc_op& operation = operations[count++];
  operation.op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  operation.data.send_status_from_server.status =
      status_ == nullptr ? GRPC_STATUS_OK : static_cast<grpc_status_code>(status_->code);
  operation.data.send_status_from_server.status_details = status_ == nullptr ? nullptr : &details;
  StartBatch(call_, operations, count, &on_status_sent_);
  grpc_slice_unref(details);
}

void StreamCall::OnStatusSent(bool /*ok*/) {
  sending_status_ = false;
  ReleaseIfOver();
}

void StreamCall::ReleaseIfOver() {
  if (!open_ || !closed_ || !core_done_ || reading_ || writing_ || sending_status_) return;
  open_ = false;
  outbox_.clear();
  const int code = !status_sent_ || cancelled_ != 0 ? GRPC_STATUS_CANCELLED
                   : status_ == nullptr             ? GRPC_STATUS_OK
                                                    : status_->code;
  CountHandled(code);
  status_.reset();
  grpc_call_unref(std::exchange(call_, nullptr));
  pool_->free_.push_back(this);
}

}  // namespace conclave::rpc
