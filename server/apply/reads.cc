// Reads of the state: what does not go through the log.
#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/server/apply/range.h"
#include "conclave/server/apply/range_stream.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/apply/txn.h"
#include "conclave/server/mvcc/hash_kv.h"

namespace conclave::apply {
namespace {

using wire::Method;

ReadResult Refuse(const wire::Error* error) { return {error, Bytes(), nullptr}; }
ReadResult Answer(Bytes response) { return {nullptr, std::move(response), nullptr}; }

// HashKV, or with_revisions = false the plain Hash.
class HashTask : public ReadTask {
 public:
  HashTask(mvcc::HashKvCursor cursor, const wire::ResponseHeader& header, bool with_revisions)
      : cursor_(std::move(cursor)), header_(header), with_revisions_(with_revisions) {}

  bool Run(size_t budget) override { return cursor_.Advance(budget); }

  Bytes TakeResponse() override {
    const mvcc::HashKvResult& result = cursor_.result();
    if (!with_revisions_) return wire::EncodeHash(header_, result.hash);
    return wire::EncodeHashKv(header_, result.hash, result.compact_revision, result.hash_revision);
  }

 private:
  mvcc::HashKvCursor cursor_;
  wire::ResponseHeader header_;
  bool with_revisions_;
};

}  // namespace

ReadResult StateMachine::Read(const ReadContext& context, Method method, std::string_view request) {
  switch (method) {
    case Method::kRange:
      return ReadRange(context, request);
    case Method::kTxn:
      return ReadTxn(context, request);
    case Method::kLeaseTimeToLive:
      return ReadTimeToLive(context, request);
    case Method::kLeaseLeases: {
      const std::vector<lease::LeaseId> ids = lessor_.Leases();
      return Answer(wire::EncodeLeaseLeases(Header(context.raft_term), ids));
    }
    case Method::kMemberList:
      return Answer(membership_.EncodeList(Header(context.raft_term)));
    case Method::kHash:
      return ReadHashKv(context, 0, /*with_revisions=*/false);
    case Method::kHashKv: {
      wire::HashKvRequest hash;
      if (!wire::Parse(request, &hash)) return Refuse(&wire::kErrMalformed);
      return ReadHashKv(context, hash.revision, /*with_revisions=*/true);
    }
    case Method::kAlarm:
      return ReadAlarms(context, request);
    case Method::kDowngrade:
      return ReadDowngrade(context, request);
    case Method::kAuthStatus:
    case Method::kUserGet:
    case Method::kUserList:
    case Method::kRoleGet:
    case Method::kRoleList:
      return ReadAuth(context, method, request);
    default:
      return Refuse(&wire::kErrUnimplemented);
  }
}

// Hot for a single key at the head: one allocation, the reply's.
ReadResult StateMachine::ReadRange(const ReadContext& context, std::string_view body) {
  wire::RangeRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  int64_t revision;
  if (const wire::Error* error = ResolveRevision(*store_, request.revision, &revision)) {
    return Refuse(error);
  }
  const wire::ResponseHeader header = Header(context.raft_term);
  if (request.range_end.empty()) {
    const mvcc::Record* const record =
        MUTANT("read-shows-what-is-deleted") && revision == mvcc::kLatest &&
                store_->Get(request.key) == nullptr &&
                store_->current_revision() - 1 >= store_->compact_revision()
            ? store_->GetAt(request.key, store_->current_revision() - 1)
        : revision == mvcc::kLatest ? store_->Get(request.key)
                                    : store_->GetAt(request.key, revision);
    if (record == nullptr) return Answer(wire::EncodeRangeOfOne(header, nullptr, false, 0));
    const RangeShape shape(request);
    if (request.count_only || !shape.Keeps(*record)) {
      return Answer(wire::EncodeRangeOfOne(header, nullptr, false, 1));
    }
    const wire::KeyValue kv = shape.Project(*record);
    return Answer(wire::EncodeRangeOfOne(header, &kv, false, 1));
  }
  // Reading the current revision by its number is reading the head, which knows how many keys there
  // are.
  if (revision == store_->current_revision()) revision = mvcc::kLatest;
  std::optional<int64_t> count;
  if (revision == mvcc::kLatest) {
    count = store_->Count(mvcc::KeyRange::FromRequest(request.key, request.range_end), revision);
    const int64_t visits = std::min(*count, RangeShape(request).fetch_max());
    if (request.count_only || visits <= static_cast<int64_t>(options_.immediate_range_max)) {
      builder_.Clear();
      AppendRange(*store_, request, revision, header, &builder_);
      return Answer(builder_.Take());
    }
  }
  return FinishOrHandOver(MakeRangeTask(store_.get(), request, revision, count, header));
}

ReadResult StateMachine::FinishOrHandOver(std::unique_ptr<ReadTask> task) const {
  if (!task->Run(options_.immediate_range_max)) return {nullptr, Bytes(), std::move(task)};
  if (task->error() != nullptr) return Refuse(task->error());
  return Answer(task->TakeResponse());
}

ReadResult StateMachine::ReadTxn(const ReadContext& context, std::string_view body) {
  if (!wire::ValidTxn(body)) return Refuse(&wire::kErrMalformed);
  TxnExecution execution(store_.get(), &lessor_, wire::TxnRequest(body));
  execution.Decide();
  if (const wire::Error* error = execution.Check()) return Refuse(error);
  builder_.Clear();
  execution.Execute(nullptr, &builder_);
  return Answer(wire::EncodeBehindHeader(Header(context.raft_term), &builder_));
}

ReadResult StateMachine::ReadHashKv(const ReadContext& context, int64_t revision,
                                    bool with_revisions) {
  if (revision > store_->current_revision()) return Refuse(&wire::kErrFutureRevision);
  if (revision > 0 && revision < store_->compact_revision()) return Refuse(&wire::kErrCompacted);
  absl::StatusOr<mvcc::HashKvCursor> cursor = mvcc::HashKvCursor::Open(store_.get(), revision);
  CONCLAVE_CHECK(cursor.ok(), cursor.status().ToString());
  return FinishOrHandOver(
      std::make_unique<HashTask>(*std::move(cursor), Header(context.raft_term), with_revisions));
}

ReadResult StateMachine::ReadTimeToLive(const ReadContext& context, std::string_view body) const {
  wire::LeaseTimeToLiveRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  const wire::ResponseHeader header = Header(context.raft_term);
  if (!lessor_.Exists(request.id)) {
    return Answer(wire::EncodeLeaseTimeToLive(header, request.id, -1, 0, {}));
  }
  const auto ttl = lessor_.TimeToLive(request.id, context.now);
  CONCLAVE_CHECK(ttl.ok(), ttl.status().ToString());
  std::vector<std::string_view> keys;
  if (request.keys) {
    lessor_.ForEachKey(request.id, [&keys](std::string_view key) {
      keys.push_back(key);
      return true;
    });
  }
  return Answer(wire::EncodeLeaseTimeToLive(header, request.id, ttl->remaining_seconds,
                                            ttl->ttl_seconds, keys));
}

ReadResult StateMachine::ReadDowngrade(const ReadContext& context, std::string_view body) const {
  wire::DowngradeRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  std::string target;
  if (const wire::Error* error = CheckDowngrade(request.version, &target)) return Refuse(error);
  return Answer(EncodeDowngrade(context.raft_term));
}

StreamResult StateMachine::OpenRangeStream(const ReadContext& context, std::string_view body) {
  wire::RangeRequest request;
  if (!wire::Parse(body, &request)) return {&wire::kErrMalformed, nullptr};
  if (const wire::Error* error = CheckRangeStream(request)) return {error, nullptr};
  int64_t revision;
  if (const wire::Error* error = ResolveRevision(*store_, request.revision, &revision)) {
    return {error, nullptr};
  }
  if (revision == store_->current_revision()) revision = mvcc::kLatest;
  return {nullptr, MakeRangeStream(store_.get(), request, revision, Header(context.raft_term),
                                   options_.limits.request_bytes_max)};
}

ReadResult StateMachine::ReadAlarms(const ReadContext& context, std::string_view body) const {
  wire::AlarmRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  std::vector<wire::AlarmMember> alarms;
  const bool get = request.action == static_cast<int32_t>(wire::AlarmAction::kGet);
  for (const Alarm& alarm : Alarms()) {
    const bool asked = request.alarm == static_cast<int32_t>(wire::AlarmType::kNone) ||
                       request.alarm == alarm.type;
    if (get && asked) alarms.push_back({alarm.member_id, alarm.type});
  }
  return Answer(wire::EncodeAlarm(Header(context.raft_term), alarms));
}

}  // namespace conclave::apply
