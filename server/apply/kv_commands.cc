// What committed requests of the KV service do to the state.
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/range.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/apply/txn.h"

namespace conclave::apply {
namespace {

ApplyResult Refuse(const wire::Error* error) { return {error, Bytes()}; }

}  // namespace

void StateMachine::MoveLease(std::string_view key, int64_t from, int64_t to) {
  if (from == to) return;
  if (from != lease::kNoLease && !MUTANT("key-not-detached-from-its-lease")) {
    lessor_.Detach(key, from);
  }
  if (to != lease::kNoLease) {
    const absl::Status attached = lessor_.Attach(key, to);
    CONCLAVE_CHECK(attached.ok(), attached.ToString());
  }
}

mvcc::RecordRef StateMachine::Put(mvcc::WriteTxn* txn, const wire::PutRequest& request) {
  std::string_view value = request.value;
  int64_t lease = request.lease;
  mvcc::RecordRef kept;
  if (request.ignore_value || request.ignore_lease) {
    kept = mvcc::RecordRef(store_->Get(request.key));
    CONCLAVE_CHECK(kept, "a put that was not checked");
    if (request.ignore_value) value = kept->value();
    if (request.ignore_lease) lease = kept->lease();
  }
  mvcc::WriteTxn::PutResult result = txn->Put(request.key, value, lease);
  MoveLease(request.key, result.previous ? result.previous->lease() : lease::kNoLease, lease);
  return std::move(result.previous);
}

std::vector<mvcc::RecordRef> StateMachine::DeleteRange(mvcc::WriteTxn* txn,
                                                       const wire::DeleteRangeRequest& request) {
  std::vector<mvcc::RecordRef> deleted;
  if (request.range_end.empty()) {
    if (mvcc::RecordRef record = txn->Delete(request.key)) deleted.push_back(std::move(record));
  } else {
    deleted = txn->DeleteRange(mvcc::KeyRange::FromRequest(request.key, request.range_end));
  }
  for (const mvcc::RecordRef& record : deleted) {
    MoveLease(record->key(), record->lease(), lease::kNoLease);
  }
  return deleted;
}

// Hot: no allocation but the store's record and the reply.
ApplyResult StateMachine::ApplyPut(const ApplyContext& context, std::string_view body) {
  wire::PutRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  if (request.lease != lease::kNoLease && !lessor_.Exists(request.lease)) {
    REACHED("apply: a put on a lease that is gone");
    return Refuse(&wire::kErrLeaseNotFound);
  }
  if ((request.ignore_value || request.ignore_lease) && store_->Get(request.key) == nullptr) {
    return Refuse(&wire::kErrKeyNotFound);
  }
  mvcc::WriteTxn txn = store_->Begin();
  const mvcc::RecordRef previous = Put(&txn, request);
  txn.Commit();
  if (!context.want_response) return {};
  const wire::ResponseHeader header = Header(context.raft_term);
  if (!request.prev_kv || !previous) return {nullptr, wire::EncodeHeaderOnly(header)};
  const wire::KeyValue prev_kv = View(*previous);
  return {nullptr, wire::EncodePut(header, &prev_kv)};
}

ApplyResult StateMachine::ApplyDeleteRange(const ApplyContext& context, std::string_view body) {
  wire::DeleteRangeRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  mvcc::WriteTxn txn = store_->Begin();
  const std::vector<mvcc::RecordRef> deleted = DeleteRange(&txn, request);
  txn.Commit();
  if (!context.want_response) return {};
  builder_.Clear();
  wire::AppendHeader(&builder_, Header(context.raft_term));
  builder_.AppendNumber(2, uint64_t{deleted.size()});
  if (request.prev_kv) {
    for (const mvcc::RecordRef& record : deleted) {
      wire::AppendKeyValue(&builder_, 3, View(*record));
    }
  }
  return {nullptr, builder_.Take()};
}

// The writes of a transaction, which move leases too.
class StateMachine::StoreWriter : public TxnWriter {
 public:
  explicit StoreWriter(StateMachine* state) : state_(state), txn_(state->store_->Begin()) {}

  mvcc::RecordRef Put(const wire::PutRequest& request) override {
    return state_->Put(&txn_, request);
  }
  std::vector<mvcc::RecordRef> DeleteRange(const wire::DeleteRangeRequest& request) override {
    return state_->DeleteRange(&txn_, request);
  }
  bool wrote() const override { return txn_.wrote(); }
  int64_t revision() const override { return txn_.revision(); }
  void Commit() { txn_.Commit(); }

 private:
  StateMachine* state_;
  mvcc::WriteTxn txn_;
};

ApplyResult StateMachine::ApplyTxn(const ApplyContext& context, std::string_view body) {
  if (!wire::ValidTxn(body)) return Refuse(&wire::kErrMalformed);
  TxnExecution execution(store_.get(), &lessor_, wire::TxnRequest(body));
  execution.Decide();
  if (const wire::Error* error = execution.Check(); error && !MUTANT("transaction-in-part")) {
    REACHED("apply: a transaction is refused as a whole");
    return Refuse(error);
  }
  builder_.Clear();
  StoreWriter writer(this);
  execution.Execute(&writer, context.want_response ? &builder_ : nullptr);
  writer.Commit();
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeBehindHeader(Header(context.raft_term), &builder_)};
}

ApplyResult StateMachine::ApplyCompact(const ApplyContext& context, std::string_view body) {
  wire::CompactionRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  if (request.revision <= store_->compact_revision()) return Refuse(&wire::kErrCompacted);
  if (request.revision > store_->current_revision()) return Refuse(&wire::kErrFutureRevision);
  const absl::Status compacted = store_->Compact(request.revision);
  CONCLAVE_CHECK(compacted.ok(), compacted.ToString());
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeHeaderOnly(Header(context.raft_term))};
}

}  // namespace conclave::apply
