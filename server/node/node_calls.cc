// What clients ask, and what they are told.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/check.h"
#include "conclave/server/node/method_name.h"
#include "conclave/server/node/node_impl.h"

namespace conclave::node {
namespace {

constexpr size_t kLongReadBudget = 2000;  // records of all long reads in one turn, some 0.5 ms
constexpr size_t kLongReadsAtOnce = 8;

bool HasPassword(Method method) {
  return method == Method::kAuthenticate || method == Method::kUserAdd ||
         method == Method::kUserChangePassword;
}

std::string_view Body(const UnaryCall& call) {
  return call.request.view().substr(kRequestHeadroom);
}

bool AwaitsCompaction(const UnaryCall& call) {
  wire::CompactionRequest request;
  return call.method == Method::kCompact && wire::Parse(Body(call), &request) && request.physical;
}

}  // namespace

void Node::Impl::Take(UnaryCall& call) {
  CONCLAVE_CHECK(call.request.size() >= kRequestHeadroom, "a request without headroom");
  if (stopping_.has_value()) {
    Reply(call.id, call.method, now_, call.request.size(), &wire::kErrStopped, {});
    return;
  }
  if (call.require_leader && !raft_.leader()) {
    Reply(call.id, call.method, now_, call.request.size(), &wire::kErrNoLeader, {});
    return;
  }
  if (restricted_) [[unlikely]] {
    if (const wire::Error* error = Restriction(call)) {
      Reply(call.id, call.method, now_, call.request.size(), error, {});
      return;
    }
  }
  apply::RequestCheck check = state_->Check(call.method, Body(call));
  if (disk_.full && check.error == nullptr) [[unlikely]] {
    check.error = NoSpaceFor(call);
  }
  if (check.error != nullptr) {
    Reply(call.id, call.method, now_, call.request.size(), check.error, {});
    return;
  }
  AskerRef who;
  if (call.credentials != nullptr || state_->auth().enabled()) [[unlikely]] {
    if (!Identify(call, check.route, /*final=*/false, &who)) return;
  }
  TakeChecked(call, check.route, std::move(who));
}

void Node::Impl::TakeChecked(UnaryCall& call, apply::Route route, AskerRef who) {
  switch (route) {
    case apply::Route::kPropose:
      Propose(call, who);
      return;
    case apply::Route::kRead:
    case apply::Route::kPassword:
      ReadLinearizable(call, std::move(who));
      return;
    case apply::Route::kReadLocal: {
      ReadQueue::Read read{call.id, call.method,   kClientRead, call.request.Slice(Body(call)),
                           now_,    std::move(who)};
      Execute(read);
      return;
    }
    case apply::Route::kLeader:
      if (raft_.is_leader()) {
        ReadLinearizable(call, std::move(who));
      } else if (leases_.full()) {
        Reply(call.id, call.method, now_, call.request.size(), &wire::kErrTooManyRequests, {});
      } else {
        leases_.ForwardTimeToLive(call.id, call.request.Slice(Body(call)), now_, std::move(who));
      }
      return;
    case apply::Route::kNode:
      AnswerFromNode(call);
      return;
  }
}

// ---- Writes -------------------------------------------------------------------------------------

void Node::Impl::Propose(UnaryCall& call, const AskerRef& who) {
  const size_t bytes = call.request.size();
  if (raft_.commit().value() - state_->applied_index() > options_.commit_apply_gap_max ||
      proposals_.size() >= options_.pending_proposals_max ||
      proposals_.bytes() + bytes > options_.pending_proposal_bytes_max) {
    Reply(call.id, call.method, now_, bytes, &wire::kErrTooManyRequests, {});
    return;
  }
  Waiter waiter;
  waiter.kind = Waiter::Kind::kCall;
  waiter.method = call.method;
  waiter.call = call.id;
  waiter.arrived = now_;
  waiter.bytes = bytes;
  if (AwaitsCompaction(call)) [[unlikely]]
    waiter.tag = kPhysical;
  const uint64_t sequence = proposals_.next_sequence();
  Bytes payload =
      state_->Prepare(call.method, std::move(call.request), options_.id.value(), sequence, &prng_);
  if (who != nullptr) [[unlikely]] {
    payload = OnBehalf(std::move(payload), call.method, sequence, who);
    auth_.Proposed(sequence, who);
  }
  proposals_.Add(waiter, std::move(payload));
}

// ---- Reads --------------------------------------------------------------------------------------

void Node::Impl::ReadLinearizable(UnaryCall& call, AskerRef who) {
  if (reads_.size() >= options_.pending_reads_max) {
    Reply(call.id, call.method, now_, call.request.size(), &wire::kErrTooManyRequests, {});
    return;
  }
  Bytes body = call.request.Slice(Body(call));
  reads_.Add({call.id, call.method, kClientRead, std::move(body), now_, std::move(who)});
}

void Node::Impl::Serve(ReadQueue::Read& read, Instant asked) {
  if (raft_.is_leader() && asked >= led_since_) confirmed_ = std::max(confirmed_, asked);
  if (now_ - asked > options_.slow_request) ++stats_.slow_reads;
  if (read.tag == kVerifyLeadership) {
    verifying_ = false;
    again_ = true;
    return;
  }
  if (read.tag == kDownload) return StartRangeStream(read.call, read.request, read.who);
  if (read.tag == kAwaitToken) {
    UnaryCall call;
    if (auth_.Unpark(read.call.value(), &call)) {
      unparked_.push_back(std::move(call));
    } else {
      streams_unparked_ = true;
    }
    return;
  }
  // Only the primary knows what a lease has left.
  if (read.method == Method::kLeaseTimeToLive && !state_->primary()) {
    if (read.tag == kRemoteTimeToLive) {
      AnswerRemote(read.call, &wire::kErrNotPrimaryLessor, {});
    } else {
      leases_.ForwardTimeToLive(read.call, std::move(read.request), read.arrived,
                                std::move(read.who));
    }
    return;
  }
  Execute(read);
}

void Node::Impl::Execute(ReadQueue::Read& read) {
  if (state_->auth().enabled() && Denies(read)) [[unlikely]]
    return;
  if (read.method >= Method::kAuthenticate && HasPassword(read.method)) [[unlikely]] {
    return StartPassword(read);
  }
  const apply::ReadContext context{.raft_term = raft_.term().value(), .now = now_};
  apply::ReadResult result = state_->Read(context, read.method, read.request.view());
  if (result.task != nullptr) {
    long_reads_.push_back({std::move(read), std::move(result.task)});
    return;
  }
  if (read.tag == kRemoteTimeToLive) {
    AnswerRemote(read.call, result.error, std::move(result.response));
    return;
  }
  Reply(read.call, read.method, read.arrived, read.request.size(), result.error,
        std::move(result.response));
}

// The oldest few share each turn's budget, so that one huge range does not hold up small ones
// behind it.
void Node::Impl::RunLongReads() {
  if (long_reads_.empty()) return;
  const size_t running = std::min(long_reads_.size(), kLongReadsAtOnce);
  size_t finished = 0;
  for (size_t i = 0; i < running; ++i) {
    LongRead& long_read = long_reads_[i];
    if (!long_read.task->Run(kLongReadBudget / running)) continue;
    const ReadQueue::Read& read = long_read.read;
    const wire::Error* error = long_read.task->error();
    Reply(read.call, read.method, read.arrived, read.request.size(), error,
          error == nullptr ? long_read.task->TakeResponse() : Bytes());
    long_read.task.reset();
    ++finished;
  }
  if (finished > 0) {
    std::erase_if(long_reads_, [](const LongRead& read) { return read.task == nullptr; });
  }
  if (!long_reads_.empty()) again_ = true;
}

// The state was replaced: what was half read is read anew.
void Node::Impl::RestartLongReads() {
  std::vector<LongRead> long_reads = std::exchange(long_reads_, {});
  for (LongRead& long_read : long_reads) long_read.task.reset();
  for (LongRead& long_read : long_reads) Execute(long_read.read);
}

void Node::Impl::AnswerRemote(CallId which, const wire::Error* error, Bytes body) {
  const auto found = remote_reads_.find(which.value());
  if (found == remote_reads_.end()) return;
  ForwardedAnswer answer;
  answer.id = found->second.id;
  if (error != nullptr) {
    answer.code = static_cast<int>(error->code);
    answer.message = error->message;
  } else {
    // The header stands in front, and is to be that of the member that was asked.
    const size_t header = wire::MessageSize(wire::SizeOf(state_->Header(raft_.term().value())));
    answer.body = body.Slice(header, body.size() - header);
  }
  links_.Send(found->second.peer, PeerLane::kMessages, std::move(answer));
  remote_reads_.erase(found);
}

// ---- What the node itself knows -----------------------------------------------------------------

void Node::Impl::AnswerFromNode(UnaryCall& call) {
  const size_t bytes = call.request.size();
  switch (call.method) {
    case Method::kStatus:
      Reply(call.id, call.method, now_, bytes, nullptr, EncodeStatus());
      return;
    case Method::kDefragment:
      // Nothing fragments in memory. The answer has no header, as etcd's.
      effects_->defragmented = true;
      Reply(call.id, call.method, now_, bytes, nullptr, {});
      return;
    case Method::kMoveLeader:
      MoveLeader(call);
      return;
    case Method::kMemberAdd:
    case Method::kMemberRemove:
    case Method::kMemberUpdate:
    case Method::kMemberPromote:
      ChangeMembers(call);
      return;
    default:
      Reply(call.id, call.method, now_, bytes, &wire::kErrUnimplemented, {});
      return;
  }
}

Bytes Node::Impl::EncodeStatus() const {
  wire::Status status;
  state_->FillStatus(&status);
  status.version = options_.version;
  status.leader = raft_.leader().value();
  status.raft_index = raft_.commit().value();
  status.raft_term = raft_.term().value();
  status.is_learner = raft_status().is_learner;
  if (!raft_.leader()) {
    status.errors.insert(status.errors.begin(), std::string(wire::kErrNoLeader.message));
  }
  return wire::EncodeStatus(state_->Header(raft_.term().value()), status);
}

void Node::Impl::MoveLeader(UnaryCall& call) {
  const auto refuse = [&](const wire::Error& error) {
    Reply(call.id, call.method, now_, call.request.size(), &error, {});
  };
  wire::MoveLeaderRequest request;
  if (!wire::Parse(Body(call), &request)) return refuse(wire::kErrMalformed);
  if (!raft_.is_leader()) return refuse(wire::kErrNotLeader);
  const raft::NodeId target(request.target_id);
  const apply::Member* member = state_->membership().Find(request.target_id);
  if (member == nullptr || member->is_learner) return refuse(wire::kErrBadLeaderTransferee);
  if (target != options_.id) {
    switch (TransferLeader(target)) {
      case raft::TransferStatus::kStarted:
      case raft::TransferStatus::kAlreadyLeader:
        break;
      case raft::TransferStatus::kNotLeader:
        return refuse(wire::kErrNotLeader);
      case raft::TransferStatus::kNotVoter:
        return refuse(wire::kErrBadLeaderTransferee);
    }
  }
  moves_.push_back({call.id, target, now_});
  CheckMoves();
}

void Node::Impl::CheckMoves() {
  std::erase_if(moves_, [this](const LeaderMove& move) {
    if (raft_.leader() == move.target) {
      // No header, as etcd's.
      Reply(move.call, Method::kMoveLeader, move.arrived, 0, nullptr, {});
      return true;
    }
    if (now_ - move.arrived < patience_) return false;
    Reply(move.call, Method::kMoveLeader, move.arrived, 0, &wire::kErrTimeoutLeaderTransfer, {});
    return true;
  });
}

// ---- Answers ------------------------------------------------------------------------------------

void Node::Impl::Reply(CallId call, Method method, Instant arrived, size_t bytes,
                       const wire::Error* error, Bytes body) {
  const size_t answer_bytes = body.size();
  node::Reply& reply = effects_->replies.emplace_back();
  reply.id = call;
  if (error != nullptr) {
    reply.error = std::make_unique<CallError>(
        CallError{static_cast<int>(error->code), std::string(error->message)});
  } else {
    reply.body = std::move(body);
  }
  if (now_ - arrived > options_.slow_request) [[unlikely]]
    LogSlow(method, arrived, bytes, answer_bytes);
}

void Node::Impl::ReplyError(CallId call, int code, std::string_view message) {
  node::Reply& reply = effects_->replies.emplace_back();
  reply.id = call;
  reply.error = std::make_unique<CallError>(CallError{code, std::string(message)});
}

void Node::Impl::LogSlow(Method method, Instant arrived, size_t bytes, size_t answer_bytes) {
  ++stats_.slow_requests;
  Log(Severity::kWarning, "request stats",
      {{"time spent", absl::FormatDuration(absl::Nanoseconds((now_ - arrived).count()))},
       {"response type",
        absl::StrCat("/", std::string(ServiceName(method)), "/", std::string(MethodName(method)))}},
      {{"request size", static_cast<int64_t>(bytes)},
       {"response size", static_cast<int64_t>(answer_bytes)}});
  effects_->log_lines.back().took = now_ - arrived;
}

const wire::Error& Node::Impl::TimeoutError(Instant arrived) const {
  // As etcd tells it: had the leader been lost shortly before or while the call waited?
  if (leader_lost_ > arrived - options_.election_timeout) return wire::kErrTimeoutLeaderFail;
  if (raft_.is_leader()) return wire::kErrTimeoutConnectionLost;
  return wire::kErrTimeout;
}

// ---- Streams ------------------------------------------------------------------------------------

void Node::Impl::Take(StreamOpened& opened) {
  const auto refuse = [&](const wire::Error& error) { FinishStream(opened.id, &error); };
  if (stopping_.has_value()) return refuse(wire::kErrStopped);
  if (opened.require_leader && !raft_.leader()) return refuse(wire::kErrNoLeader);
  if (restricted_) [[unlikely]] {
    if (state_->applied_index() == 0) return refuse(wire::kErrNoLeader);
    if (opened.kind != StreamKind::kSnapshot) return refuse(wire::kErrNotSupportedForLearner);
  }
  if (leases_.streams() + watches_.size() + downloads_.size() >= options_.streams_max) {
    return refuse(wire::kErrTooManyRequests);
  }
  if (opened.credentials != nullptr) {
    shown_streams_[opened.id] = {.shown = opened.credentials, .since = now_};
  }
  switch (opened.kind) {
    case StreamKind::kWatch:
      return watches_.Open(opened.id, opened.require_leader);
    case StreamKind::kLeaseKeepAlive:
      return leases_.Open(opened.id);
    case StreamKind::kRangeStream:
    case StreamKind::kSnapshot:
      return downloads_.Open(opened.id, opened.kind, std::move(opened.credentials));
  }
}

void Node::Impl::Take(StreamMessage& message) {
  AskerRef who;
  const wire::Error* refused = nullptr;
  if (!shown_streams_.empty() || state_->auth().enabled()) [[unlikely]] {
    if (!Identify(message, &who, &refused)) return;
  }
  TakeMessage(message, who, refused);
}

void Node::Impl::TakeMessage(StreamMessage& message, const AskerRef& who,
                             const wire::Error* refused) {
  if (downloads_.Contains(message.id)) return TakeDownloadRequest(message, who, refused);
  const bool watch = watches_.Contains(message.id);
  if (!watch && leases_.full()) {
    if (leases_.Close(message.id)) FinishStream(message.id, &wire::kErrTooManyRequests);
    return;
  }
  if (!watch && refused != nullptr) {
    shown_streams_.erase(message.id);
    if (leases_.Close(message.id)) FinishStream(message.id, refused);
    return;
  }
  const auto gate = [&](std::string_view key, std::string_view range_end) {
    if (refused != nullptr || !state_->auth().enabled()) return refused;
    return state_->CheckAccess(AuthDesk::Present(who, *state_),
                               {apply::Access::Kind::kRead, key, range_end});
  };
  const bool understood =
      watch ? watches_.Message(message.id, message.message.view(), now_, who, gate)
            : leases_.Message(message.id, message.message.view(), now_, who);
  if (understood) return;
  (void)(watch ? watches_.Close(message.id) : leases_.Close(message.id));
  shown_streams_.erase(message.id);
  FinishStream(message.id, &wire::kErrMalformed);
}

void Node::Impl::Take(StreamHalfClosed& closed) {
  const auto shown = shown_streams_.find(closed.id);
  if (shown != shown_streams_.end() && shown->second.awaits_token) {
    shown->second.half_closed = true;
    return;
  }
  // A client that has nothing more to ask may still want to watch.
  leases_.HalfClosed(closed.id, effects_);
}

void Node::Impl::Take(StreamClosed& closed) {
  shown_streams_.erase(closed.id);
  // If nobody knows it, the node has ended it of its own accord, and both words crossed.
  if (watches_.Close(closed.id) || leases_.Close(closed.id) || downloads_.Close(closed.id)) {
    FinishStream(closed.id, nullptr);
  }
}

void Node::Impl::FinishStream(CallId stream, const wire::Error* error) {
  StreamEffect& effect = effects_->streams.emplace_back();
  effect.id = stream;
  effect.finish = true;
  if (error != nullptr) {
    effect.error = std::make_unique<CallError>(
        CallError{static_cast<int>(error->code), std::string(error->message)});
  }
}

void Node::Impl::Take(StreamSent& sent) {
  watches_.Sent(sent.id, sent.bytes);
  downloads_.Sent(sent.id, sent.bytes);
}

}  // namespace conclave::node
