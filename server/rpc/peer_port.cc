#include "conclave/server/rpc/peer_port.h"

#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/server/rpc/call_slot.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {

// One lane from another member. Destroys itself (through the port's list) when it is over.
class PeerStream {
 public:
  PeerStream(PeerPort* port, node::PeerLane lane) : port_(port), lane_(lane) {
    grpc_metadata_array_init(&metadata_);
  }
  ~PeerStream() { grpc_metadata_array_destroy(&metadata_); }

  void Post();
  void Cancel() {
    if (call_ != nullptr) grpc_call_cancel(call_, nullptr);
  }
  // Replaced by a newer lane of the same kind from the same member.
  bool IsFrom(raft::NodeId from, node::PeerLane lane) const { return from_ == from && lane_ == lane; }

 private:
  void OnArrived(bool ok);
  void OnStarted(bool ok);
  void OnRead(bool ok);
  void OnClosed(bool ok);
  void Accept();
  void Refuse(const std::string& reason);
  void StartRead();
  void OperationOver();
  void Start(const grpc_op* operations, size_t count, Completion* completion) {
    ++operations_;
    const grpc_call_error error =
        grpc_call_start_batch(call_, operations, count, completion->tag(), nullptr);
    CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
  }

  PeerPort* const port_;
  const node::PeerLane lane_;
  raft::NodeId from_;
  grpc_call* call_ = nullptr;
  gpr_timespec deadline_{};
  grpc_metadata_array metadata_;
  grpc_byte_buffer* received_ = nullptr;
  int cancelled_ = 0;
  int operations_ = 0;
  std::vector<Bytes> frames_;
  MemberCompletion<PeerStream, &PeerStream::OnArrived> on_arrived_{this};
  MemberCompletion<PeerStream, &PeerStream::OnStarted> on_started_{this};
  MemberCompletion<PeerStream, &PeerStream::OnRead> on_read_{this};
  MemberCompletion<PeerStream, &PeerStream::OnClosed> on_closed_{this};
};

void PeerStream::Post() {
  ++operations_;
  const grpc_call_error error = grpc_server_request_registered_call(
      port_->server_, port_->registered_[static_cast<int>(lane_)], &call_, &deadline_, &metadata_,
      nullptr, port_->queue_->cq(), port_->queue_->cq(), on_arrived_.tag());
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "request_registered_call: ", static_cast<int>(error));
}

void PeerStream::OnArrived(bool ok) {
  if (!ok) return OperationOver();  // the server shuts down
  port_->PostOne(lane_);
  grpc_op operation = {};
  operation.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  operation.data.recv_close_on_server.cancelled = &cancelled_;
  Start(&operation, 1, &on_closed_);
  raft::NodeId from;
  const std::string reason = port_->CheckHandshake(metadata_, &from);
  if (reason.empty()) {
    for (const auto& other : port_->streams_) {
      if (other->IsFrom(from, lane_)) other->Cancel();
    }
    from_ = from;
    Accept();
  } else {
    Refuse(reason);
  }
  OperationOver();
}

void PeerStream::Accept() {
  grpc_metadata version = {grpc_slice_from_static_string(kVersionKey),
                           grpc_slice_from_static_string(kPeerVersion), {}};
  grpc_op operation = {};
  operation.op = GRPC_OP_SEND_INITIAL_METADATA;
  operation.data.send_initial_metadata.count = 1;
  operation.data.send_initial_metadata.metadata = &version;
  Start(&operation, 1, &on_started_);
  StartRead();
  if (port_->on_peer) port_->on_peer(from_);
}

void PeerStream::Refuse(const std::string& reason) {
  char* remote = grpc_call_get_peer(call_);
  (*port_->log_)({node::Severity::kWarning,
                  "rejected connection on peer endpoint",
                  {{"remote-addr", remote}, {"error", reason}}});
  gpr_free(remote);
  grpc_slice details = CopySlice(reason);
  grpc_op operations[2] = {};
  operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  operations[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  operations[1].data.send_status_from_server.status = GRPC_STATUS_FAILED_PRECONDITION;
  operations[1].data.send_status_from_server.status_details = &details;
  Start(operations, 2, &on_started_);
  grpc_slice_unref(details);
}

void PeerStream::OnStarted(bool /*ok*/) { OperationOver(); }

void PeerStream::StartRead() {
  grpc_op operation = {};
  operation.op = GRPC_OP_RECV_MESSAGE;
  operation.data.recv_message.recv_message = &received_;
  Start(&operation, 1, &on_read_);
}

void PeerStream::OnRead(bool ok) {
  grpc_byte_buffer* received = std::exchange(received_, nullptr);
  if (ok && received != nullptr) {
    const Bytes message = TakeMessage(received, 0);
    port_->received_bytes_[from_] += message.size();
    frames_.clear();
    if (SplitFrames(message, &frames_)) {
      for (Bytes& frame : frames_) {
        port_->queue_->inputs().emplace_back(node::PeerFrame{from_, lane_, std::move(frame)});
      }
      StartRead();
    } else {
      Cancel();
    }
  }
  OperationOver();
}

void PeerStream::OnClosed(bool /*ok*/) {
  // The other side is gone (it never ends a lane otherwise), or was refused. gRPC wants a status of every call, but
  // a cancelled one has it already.
  if (from_ && cancelled_ == 0) Cancel();
  OperationOver();
}

void PeerStream::OperationOver() {
  if (--operations_ > 0) return;
  if (call_ != nullptr) grpc_call_unref(std::exchange(call_, nullptr));
  auto& streams = port_->streams_;
  const auto self = std::find_if(streams.begin(), streams.end(),
                                 [this](const auto& stream) { return stream.get() == this; });
  CONCLAVE_CHECK(self != streams.end());
  const std::unique_ptr<PeerStream> keep = std::move(*self);
  streams.erase(self);
}

PeerPort::PeerPort(Queue* queue, PeerIdentity self, const std::function<void(node::LogLine)>* log)
    : queue_(queue), self_(self), log_(log) {}

PeerPort::~PeerPort() {
  CONCLAVE_CHECK(streams_.empty() || server_ == nullptr, "lanes are open");
  if (server_ != nullptr) grpc_server_destroy(server_);
}

absl::Status PeerPort::Listen(const std::vector<std::string>& addresses) {
  grpc_arg arguments[4] = {};
  const std::pair<const char*, int> values[] = {
      {GRPC_ARG_ALLOW_REUSEPORT, 0},  // a port in use is an error
      {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000},
      {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 * 1024 * 1024},
  };
  for (size_t i = 0; i < std::size(values); ++i) {
    arguments[i].type = GRPC_ARG_INTEGER;
    arguments[i].key = const_cast<char*>(values[i].first);
    arguments[i].value.integer = values[i].second;
  }
  const grpc_channel_args all = {std::size(arguments), arguments};
  server_ = grpc_server_create(&all, nullptr);
  grpc_server_register_completion_queue(server_, queue_->cq(), nullptr);
  registered_[static_cast<int>(node::PeerLane::kMessages)] =
      grpc_server_register_method(server_, kPeerMessagesPath, nullptr, GRPC_SRM_PAYLOAD_NONE, 0);
  registered_[static_cast<int>(node::PeerLane::kSnapshot)] =
      grpc_server_register_method(server_, kPeerSnapshotPath, nullptr, GRPC_SRM_PAYLOAD_NONE, 0);
  grpc_server_credentials* plain = grpc_insecure_server_credentials_create();
  absl::Status status;
  for (const std::string& address : addresses) {
    if (grpc_server_add_http2_port(server_, address.c_str(), plain) != 0) continue;
    status = absl::UnavailableError(absl::StrCat("cannot listen for peers on ", address,
                                                 ": the address is in use or not of this machine"));
    break;
  }
  grpc_server_credentials_release(plain);
  grpc_server_start(server_);
  if (!status.ok()) return status;
  for (int i = 0; i < kPostedPeerStreams; ++i) {
    PostOne(node::PeerLane::kMessages);
    PostOne(node::PeerLane::kSnapshot);
  }
  return absl::OkStatus();
}

void PeerPort::PostOne(node::PeerLane lane) {
  streams_.push_back(std::make_unique<PeerStream>(this, lane));
  streams_.back()->Post();
}

std::string PeerPort::CheckHandshake(const grpc_metadata_array& metadata,
                                     raft::NodeId* from) const {
  std::map<std::string_view, std::string_view> values;
  for (size_t i = 0; i < metadata.count; ++i) {
    values[SliceView(metadata.metadata[i].key)] = SliceView(metadata.metadata[i].value);
  }
  if (values[kVersionKey] != kPeerVersion) {
    return absl::StrCat("peer protocol version ", std::string(values[kVersionKey]),
                        " is not ", kPeerVersion);
  }
  if (values[kClusterKey] != Hex(self_.cluster_id)) {
    return absl::StrCat("cluster ID mismatch: theirs ", std::string(values[kClusterKey]), ", ours ",
                        Hex(self_.cluster_id));
  }
  if (values[kToKey] != Hex(self_.member.value())) {
    return absl::StrCat("member ID mismatch: they look for ", std::string(values[kToKey]),
                        ", this is ", Hex(self_.member.value()));
  }
  uint64_t id = 0;
  if (!absl::SimpleHexAtoi(std::string(values[kFromKey]), &id) || id == 0 ||
      id == self_.member.value()) {
    return absl::StrCat("bad member ID ", std::string(values[kFromKey]));
  }
  *from = raft::NodeId(id);
  return {};
}

void PeerPort::Close(std::function<void()> done) {
  closed_ = std::move(done);
  grpc_server_shutdown_and_notify(server_, queue_->cq(), on_shut_down_.tag());
  grpc_server_cancel_all_calls(server_);
}

void PeerPort::OnShutDown(bool /*ok*/) { closed_(); }

uint64_t PeerPort::received_bytes(raft::NodeId from) const {
  const auto found = received_bytes_.find(from);
  return found == received_bytes_.end() ? 0 : found->second;
}

}  // namespace conclave::rpc
