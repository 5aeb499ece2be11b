#include "conclave/server/rpc/peer_link.h"

#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/server/rpc/call_slot.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {
namespace {

grpc_arg IntArgument(const char* key, int value) {
  grpc_arg argument;
  argument.type = GRPC_ARG_INTEGER;
  argument.key = const_cast<char*>(key);
  argument.value.integer = value;
  return argument;
}

// "http://host:port" -> "host:port"
std::string Target(const std::string& url) {
  const size_t scheme = url.find("://");
  std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  if (const size_t slash = rest.find('/'); slash != std::string::npos) rest.resize(slash);
  return rest;
}

void StartBatch(grpc_call* call, const grpc_op* operations, size_t count, Completion* completion) {
  const grpc_call_error error =
      grpc_call_start_batch(call, operations, count, completion->tag(), nullptr);
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
}

}  // namespace

PeerLink::PeerLink(Queue* queue, PeerIdentity self, node::PeerAddress address, node::PeerLane lane,
                   const std::function<void(node::LogLine)>* log)
    : queue_(queue), self_(self), address_(std::move(address)), lane_(lane), log_(log) {
  grpc_metadata_array_init(&headers_);
  grpc_metadata_array_init(&trailers_);
  details_ = grpc_empty_slice();
}

PeerLink::~PeerLink() {
  CONCLAVE_CHECK(operations_ == 0, "a peer link with operations under way");
  *alive_ = false;
  grpc_metadata_array_destroy(&headers_);
  grpc_metadata_array_destroy(&trailers_);
  if (channel_ != nullptr) grpc_channel_destroy(channel_);
}

void PeerLink::OpenChannel() {
  const grpc_arg arguments[] = {
      IntArgument(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20),
      IntArgument(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200),
      IntArgument(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000),  // the time-out of one attempt
      IntArgument(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 1000),
      IntArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000),
      IntArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000),
      IntArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
      IntArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0),
      IntArgument(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1),
      IntArgument(GRPC_ARG_ENABLE_RETRIES, 0),
      IntArgument(GRPC_ARG_ENABLE_CHANNELZ, 0),
      IntArgument(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
      IntArgument(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
      // Several members in one process (tests) must not share their backoff.
      IntArgument(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
  };
  const grpc_channel_args all = {std::size(arguments), const_cast<grpc_arg*>(arguments)};
  grpc_channel_credentials* plain = grpc_insecure_credentials_create();
  const std::string target = Target(address_.peer_urls[url_ % address_.peer_urls.size()]);
  channel_ = grpc_channel_create(target.c_str(), plain, &all);
  grpc_channel_credentials_release(plain);
}

void PeerLink::Start() {
  if (address_.peer_urls.empty() || closing_) return;
  if (channel_ == nullptr) OpenChannel();
  OpenStream();
}

void PeerLink::OpenStream() {
  const char* path =
      lane_ == node::PeerLane::kMessages ? kPeerMessagesPath : kPeerSnapshotPath;
  call_ = grpc_channel_create_call(channel_, nullptr, GRPC_PROPAGATE_DEFAULTS, queue_->cq(),
                                   grpc_slice_from_static_string(path), nullptr,
                                   gpr_inf_future(GPR_CLOCK_REALTIME), nullptr);
  ended_ = writing_ = false;
  headers_.count = trailers_.count = 0;

  grpc_metadata metadata[4] = {};
  metadata[0] = {grpc_slice_from_static_string(kClusterKey), CopySlice(Hex(self_.cluster_id)), {}};
  metadata[1] = {grpc_slice_from_static_string(kFromKey), CopySlice(Hex(self_.member.value())), {}};
  metadata[2] = {grpc_slice_from_static_string(kToKey), CopySlice(Hex(address_.id.value())), {}};
  metadata[3] = {grpc_slice_from_static_string(kVersionKey),
                 grpc_slice_from_static_string(kPeerVersion), {}};
  grpc_op operations[2] = {};
  operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  operations[0].flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY;
  operations[0].data.send_initial_metadata.count = std::size(metadata);
  operations[0].data.send_initial_metadata.metadata = metadata;
  operations[1].op = GRPC_OP_RECV_INITIAL_METADATA;
  operations[1].data.recv_initial_metadata.recv_initial_metadata = &headers_;
  operations_ += 2;
  StartBatch(call_, operations, 2, &on_headers_);
  for (grpc_metadata& entry : metadata) grpc_slice_unref(entry.value);

  grpc_op status = {};
  status.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
  status.data.recv_status_on_client.trailing_metadata = &trailers_;
  status.data.recv_status_on_client.status = &status_;
  status.data.recv_status_on_client.status_details = &details_;
  StartBatch(call_, &status, 1, &on_ended_);
}

void PeerLink::SetConnected(bool connected) {
  if (connected_ == connected) return;
  connected_ = connected;
  queue_->inputs().emplace_back(node::PeerConnection{address_.id, lane_, connected});
}

void PeerLink::OnHeaders(bool ok) {
  // A stream that is refused gets its status without headers of its own: gRPC shows an empty set.
  bool accepted = false;
  for (size_t i = 0; ok && i < headers_.count; ++i) {
    accepted = accepted || SliceView(headers_.metadata[i].key) == kVersionKey;
  }
  if (accepted && !ended_ && !closing_) {
    last_refusal_.clear();
    SetConnected(true);
  }
  OperationOver();
}

void PeerLink::Send(Bytes frame) {
  if (!connected_ || closing_) {
    ++dropped_frames_;
    return;
  }
  outbox_bytes_ += frame.size();
  outbox_.push_back(std::move(frame));
  while (outbox_bytes_ > kPeerOutboxBytesMax && outbox_.size() > 1) {
    outbox_bytes_ -= outbox_.front().size();
    outbox_.pop_front();
    ++dropped_frames_;
  }
  if (!writing_) Write();
}

void PeerLink::Write() {
  size_t bytes = 0;
  grpc_byte_buffer* message = JoinFrames(&outbox_, &bytes);
  outbox_bytes_ = 0;
  for (const Bytes& left : outbox_) outbox_bytes_ += left.size();
  sent_bytes_ += bytes;
  grpc_op operation = {};
  operation.op = GRPC_OP_SEND_MESSAGE;
  operation.data.send_message.send_message = message;
  writing_ = true;
  ++operations_;
  StartBatch(call_, &operation, 1, &on_written_);
  grpc_byte_buffer_destroy(message);
}

void PeerLink::OnWritten(bool ok) {
  writing_ = false;
  if (ok && connected_ && !closing_ && !outbox_.empty()) Write();
  OperationOver();
}

void PeerLink::OnEnded(bool /*ok*/) {
  ended_ = true;
  SetConnected(false);
  outbox_.clear();
  outbox_bytes_ = 0;
  OperationOver();
}

void PeerLink::LogRefusal(int status, const std::string& details) {
  if (details == last_refusal_) return;
  last_refusal_ = details;
  (*log_)({node::Severity::kWarning,
           "peer refused our connection",
           {{"remote-peer-id", Hex(address_.id.value())},
            {"remote-peer-urls", address_.peer_urls[url_ % address_.peer_urls.size()]},
            {"status", absl::StrCat(status)},
            {"error", details}}});
}

void PeerLink::OperationOver() {
  if (--operations_ > 0) return;
  const std::string details(SliceView(details_));
  grpc_slice_unref(std::exchange(details_, grpc_empty_slice()));
  grpc_call_unref(std::exchange(call_, nullptr));
  if (closing_) {
    if (on_idle) on_idle();
    return;
  }
  const bool refused = status_ == GRPC_STATUS_FAILED_PRECONDITION ||
                       status_ == GRPC_STATUS_UNIMPLEMENTED || status_ == GRPC_STATUS_INVALID_ARGUMENT;
  if (refused) LogRefusal(status_, details);
  if (address_.peer_urls.size() > 1) {  // the next address
    ++url_;
    grpc_channel_destroy(std::exchange(channel_, nullptr));
  }
  queue_->At(Now() + (refused ? kLinkRetryRefused : kLinkRetry), [this, alive = alive_] {
    if (*alive) Start();
  });
}

void PeerLink::ConnectNow() {
  if (channel_ != nullptr && !connected_ && !closing_) grpc_channel_reset_connect_backoff(channel_);
}

void PeerLink::Close() {
  if (closing_) return;
  closing_ = true;
  if (call_ != nullptr) {
    grpc_call_cancel(call_, nullptr);
  } else if (on_idle) {
    on_idle();
  }
}

}  // namespace conclave::rpc
