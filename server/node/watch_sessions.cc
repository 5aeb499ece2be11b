#include "conclave/server/node/watch_sessions.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/requests.h"
#include "conclave/base/failpoint.h"

namespace conclave::node {
namespace {

StreamEffect Finish(CallId call, const wire::Error& error) {
  StreamEffect effect;
  effect.id = call;
  effect.finish = true;
  effect.error = std::make_unique<CallError>(
      CallError{static_cast<int>(error.code), std::string(error.message)});
  return effect;
}

// Clients know the reason by the text that a Go status prints as.
std::string CancelReason(const wire::Error& error) {
  const char* code = "Unknown";
  switch (error.code) {
    case wire::Code::kPermissionDenied:
      code = "PermissionDenied";
      break;
    case wire::Code::kUnauthenticated:
      code = "Unauthenticated";
      break;
    case wire::Code::kInvalidArgument:
      code = "InvalidArgument";
      break;
    default:
      break;
  }
  return absl::StrCat("rpc error: code = ", code, " desc = ", std::string(error.message));
}

}  // namespace

WatchSessions::WatchSessions(mvcc::Store* store, const watch::WatchOptions& options)
    : hub_(store, options) {}

void WatchSessions::Open(CallId call, bool require_leader) {
  const watch::StreamId id = ++last_id_;
  ids_[call] = id;
  streams_[id] = {call, require_leader, nullptr};
  hub_.OpenStream(id);
}

bool WatchSessions::Message(CallId call, std::string_view message, Instant now, AskerRef who,
                            Gate gate) {
  const auto found = ids_.find(call);
  if (found == ids_.end()) return true;
  wire::WatchRequest request;
  if (!wire::Parse(message, &request)) return false;
  switch (request.kind) {
    case wire::WatchRequest::Kind::kCreate: {
      const wire::WatchCreateRequest& create = request.create;
      // The range is judged as the hub will read it, before anything is made of it.
      const std::string_view key = create.key.empty() ? std::string_view("\0", 1) : create.key;
      if (const wire::Error* error = gate(key, create.range_end)) {
        hub_.Refuse(found->second, CancelReason(*error));
        return true;
      }
      if (who != nullptr) streams_[found->second].who = std::move(who);
      hub_.Create(found->second,
                  {.key = std::string(create.key),
                   .range_end = std::string(create.range_end),
                   .start_revision = create.start_revision,
                   .watch_id = create.watch_id,
                   .no_put = create.filter_put,
                   .no_delete = create.filter_delete,
                   .prev_kv = create.prev_kv,
                   .progress_notify = create.progress_notify,
                   .fragment = create.fragment},
                  now);
      return true;
    }
    case wire::WatchRequest::Kind::kCancel:
      hub_.Cancel(found->second, request.cancel_watch_id);
      return true;
    case wire::WatchRequest::Kind::kProgress:
      hub_.RequestProgress(found->second);
      return true;
    case wire::WatchRequest::Kind::kNone:
      return true;
  }
  return true;
}

void WatchSessions::BeginCheck(bool judge) {
  unjudged_.reset();
  if (judge) unjudged_.emplace(0, std::numeric_limits<watch::WatchId>::min());
}

bool WatchSessions::CheckAgain(size_t limit, GateAgain gate) {
  if (!unjudged_.has_value()) return false;
  std::vector<std::pair<watch::WatchId, const wire::Error*>> over;
  for (auto at = streams_.lower_bound(unjudged_->first); at != streams_.end(); ++at) {
    // No structured binding: with clang 14 no lambda captures one.
    const watch::StreamId id = at->first;
    const Stream& stream = at->second;
    const watch::WatchId from =
        id == unjudged_->first ? unjudged_->second : std::numeric_limits<watch::WatchId>::min();
    over.clear();
    const bool all = hub_.ForEachWatcher(
        id, from, [&](watch::WatchId watch_id, std::string_view key, std::string_view range_end) {
          unjudged_.emplace(id, watch_id);
          if (limit == 0) return false;
          --limit;
          if (const wire::Error* error = gate(stream.who, key, range_end)) {
            over.emplace_back(watch_id, error);
          }
          return true;
        });
    for (const auto& [watch_id, error] : over) hub_.Cancel(id, watch_id, CancelReason(*error));
    if (!all) return true;
  }
  unjudged_.reset();
  return false;
}

void WatchSessions::JudgeOutput(watch::StreamOutput* output, const Stream& stream, GateAgain gate) {
  std::erase_if(output->responses, [&](const watch::WatchResponse& response) {
    const Place place(output->stream, response.watch_id);
    if (response.events == nullptr || place < *unjudged_) return false;
    bool goes_on = false;  // one that is gone hears no more
    const wire::Error* error = nullptr;
    hub_.ForEachWatcher(
        output->stream, response.watch_id,
        [&](watch::WatchId watch_id, std::string_view key, std::string_view range_end) {
          if (watch_id != response.watch_id) return false;
          error = gate(stream.who, key, range_end);
          goes_on = error == nullptr;
          return false;
        });
    if (goes_on) return false;
    hub_.Written(output->stream, response.charge);
    if (error != nullptr) {
      hub_.Cancel(output->stream, response.watch_id, CancelReason(*error));
    }
    return true;
  });
}

void WatchSessions::Sent(CallId call, uint64_t bytes) {
  const auto found = ids_.find(call);
  if (found != ids_.end()) hub_.Written(found->second, bytes);
}

bool WatchSessions::Close(CallId call) {
  const auto found = ids_.find(call);
  if (found == ids_.end()) return false;
  hub_.CloseStream(found->second);
  streams_.erase(found->second);
  ids_.erase(found);
  return true;
}

void WatchSessions::EndAll(const wire::Error& error, Effects* effects) {
  while (!streams_.empty()) {
    const CallId call = streams_.begin()->second.call;
    Close(call);
    effects->streams.push_back(Finish(call, error));
  }
}

void WatchSessions::EndLeaderRequiring(const wire::Error& error, Effects* effects) {
  std::vector<CallId> ending;
  for (const auto& [id, stream] : streams_) {
    if (stream.require_leader) ending.push_back(stream.call);
  }
  for (const CallId call : ending) {
    Close(call);
    effects->streams.push_back(Finish(call, error));
  }
}

bool WatchSessions::Work(Instant now, size_t budget) {
  hub_.Tick(now);
  return hub_.CatchUp(budget);
}

// The heads of all responses stand in one piece of memory: a thousand watchers of one key would
// otherwise cost an allocation each.
void WatchSessions::Encode(CallId call, wire::ResponseHeader header,
                           const std::vector<watch::WatchResponse>& responses, Effects* effects) {
  wire::Builder heads;
  head_ends_.clear();
  for (const watch::WatchResponse& response : responses) {
    header.revision = response.header_revision;
    wire::WatchResponseHead head;
    head.header = header;
    head.watch_id = response.watch_id;
    head.created = response.created;
    head.canceled = response.canceled;
    head.compact_revision = response.compact_revision;
    head.cancel_reason = response.cancel_reason;
    head.fragment = response.fragment;
    wire::AppendWatchHead(&heads, head);
    head_ends_.push_back(heads.size());
  }
  const Bytes encoded = heads.Take();
  size_t begin = 0;
  for (size_t i = 0; i < responses.size(); ++i) {
    StreamEffect& effect = effects->streams.emplace_back();
    effect.id = call;
    effect.prefix = encoded.Slice(begin, head_ends_[i] - begin);
    effect.charge = responses[i].charge;
    begin = head_ends_[i];
    if (responses[i].events == nullptr) continue;
    effect.shared = responses[i].events->Encoded();
    events_sent_ += responses[i].events->events().size();
  }
}

void WatchSessions::Flush(const wire::ResponseHeader& header, GateAgain gate, Effects* effects) {
  if (!hub_.has_output()) return;
  CONCLAVE_FAILPOINT(beforeSendWatchResponse);
  // Judging cancels watchers, which is output again; a watcher is cancelled once.
  while (hub_.has_output()) {
    hub_.TakeOutput(&output_);
    for (watch::StreamOutput& stream : output_) {
      const auto found = streams_.find(stream.stream);
      if (found == streams_.end()) continue;
      if (unjudged_.has_value()) [[unlikely]]
        JudgeOutput(&stream, found->second, gate);
      Encode(found->second.call, header, stream.responses, effects);
    }
    output_.clear();
  }
}

}  // namespace conclave::node
