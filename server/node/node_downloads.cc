// RangeStream and Snapshot: one request, a stream of answers.
#include <utility>

#include "conclave/api/wire/requests.h"
#include "conclave/server/backup/snapshot_stream.h"
#include "conclave/server/node/node_impl.h"

namespace conclave::node {

void Node::Impl::TakeDownloadRequest(StreamMessage& message, const AskerRef& who,
                                     const wire::Error* refused) {
  const DownloadDesk::Request request = downloads_.TakeRequest(message.id);
  if (!request.first) return;
  if (refused != nullptr) return RefuseDownload(message.id, *refused);
  const std::string_view body = message.message.view();
  if (request.kind == StreamKind::kSnapshot) {
    // All there is, users and roles too.
    if (const wire::Error* error = state_->CheckRoot(AuthDesk::Present(who, *state_))) {
      return RefuseDownload(message.id, *error);
    }
    // As this member has it, leader or not: a cluster without a quorum can still be saved.
    if (!wire::ValidEmpty(body)) return RefuseDownload(message.id, wire::kErrMalformed);
    if (!downloads_.Start(message.id, backup::MakeSnapshotStream(state_.get()))) {
      return RefuseDownload(message.id, wire::kErrTooManyRequests);
    }
    Log(Severity::kInfo, "sending database snapshot to client");
    return;
  }
  if (raft_status().is_learner) {
    return RefuseDownload(message.id, wire::kErrNotSupportedForLearner);
  }
  const apply::RequestCheck check = state_->Check(Method::kRange, body);
  if (check.error != nullptr) return RefuseDownload(message.id, *check.error);
  if (check.route == apply::Route::kReadLocal) {
    return StartRangeStream(message.id, message.message, who);
  }
  if (reads_.size() >= options_.pending_reads_max) {
    return RefuseDownload(message.id, wire::kErrTooManyRequests);
  }
  reads_.Add({message.id, Method::kRange, kDownload, std::move(message.message), now_, who});
}

void Node::Impl::StartRangeStream(CallId stream, const Bytes& request, const AskerRef& who) {
  if (!downloads_.Contains(stream)) return;  // it was closed while it waited
  if (const wire::Error* error =
          state_->CheckAccess(AuthDesk::Present(who, *state_), Method::kRange, request.view())) {
    return RefuseDownload(stream, *error);
  }
  const apply::ReadContext context{.raft_term = raft_.term().value(), .now = now_};
  apply::StreamResult result = state_->OpenRangeStream(context, request.view());
  if (result.error != nullptr) return RefuseDownload(stream, *result.error);
  if (!downloads_.Start(stream, std::move(result.task))) {
    RefuseDownload(stream, wire::kErrTooManyRequests);
  }
}

void Node::Impl::RefuseDownload(CallId stream, const wire::Error& error) {
  if (downloads_.Close(stream)) FinishStream(stream, &error);
}

}  // namespace conclave::node
