#include "conclave/server/rpc/reject_calls.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {

std::string RejectMessage(std::string_view path) {
  if (const MethodEntry* entry = FindMethod(path); entry != nullptr) {
    return absl::StrCat("conclave: ", std::string(entry->service()), "/",
                        std::string(entry->name()), " is not served yet");
  }
  const size_t slash = path.rfind('/');
  const std::string service(path.substr(0, slash).substr(path.empty() || path[0] != '/' ? 0 : 1));
  const std::string method(slash == std::string_view::npos ? "" : path.substr(slash + 1));
  const auto methods = AllMethods();
  const bool known = std::any_of(methods.begin(), methods.end(), [&](const MethodEntry& entry) {
    return entry.service() == service;
  });
  if (!known) return absl::StrCat("unknown service ", service);
  return absl::StrCat("unknown method ", method, " for service ", service);
}

RejectCall::RejectCall(CallHost* host) : host_(host) {
  grpc_call_details_init(&details_);
  grpc_metadata_array_init(&metadata_);
}

RejectCall::~RejectCall() {
  grpc_call_details_destroy(&details_);
  grpc_metadata_array_destroy(&metadata_);
}

void RejectCall::Post() {
  rejecting_ = false;
  metadata_.count = 0;
  const grpc_call_error error =
      grpc_server_request_call(host_->server, &call_, &details_, &metadata_, host_->queue->cq(),
                               host_->queue->cq(), tag());
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "request_call: ", static_cast<int>(error));
}

void RejectCall::Complete(bool ok) {
  if (!rejecting_) {
    if (ok) Reject();  // else: the server shuts down
    return;
  }
  grpc_call_unref(std::exchange(call_, nullptr));
  Post();
}

void RejectCall::Reject() {
  rejecting_ = true;
  const std::string path(SliceView(details_.method));
  if (const MethodEntry* entry = FindMethod(path); entry != nullptr) {
    MethodCounters& counters =
        host_->queue->counters().methods[static_cast<size_t>(entry - AllMethods().data())];
    counters.started.Add();
    counters.handled[GRPC_STATUS_UNIMPLEMENTED].Add();
  }
  grpc_slice_unref(details_.method);
  grpc_slice_unref(details_.host);
  grpc_call_details_init(&details_);

  grpc_slice message = CopySlice(RejectMessage(path));
  grpc_op operations[3] = {};
  operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  operations[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  operations[1].data.send_status_from_server.status = GRPC_STATUS_UNIMPLEMENTED;
  operations[1].data.send_status_from_server.status_details = &message;
  operations[2].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  operations[2].data.recv_close_on_server.cancelled = &cancelled_;
  const grpc_call_error error = grpc_call_start_batch(call_, operations, 3, tag(), nullptr);
  CONCLAVE_CHECK(error == GRPC_CALL_OK, "start_batch: ", static_cast<int>(error));
  grpc_slice_unref(message);
}

}  // namespace conclave::rpc
