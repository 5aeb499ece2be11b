#include "conclave/server/apply/txn.h"

#include <algorithm>

#include "conclave/api/wire/responses.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/range.h"

namespace conclave::apply {
namespace {

int Order(int64_t a, int64_t b) { return a < b ? -1 : a > b; }

wire::RequestOp Operation(std::string_view message) {
  wire::RequestOp op;
  CONCLAVE_CHECK(op.Merge(message), "a transaction that ValidTxn has not seen");
  return op;
}

// A key that does not exist is compared as one whose numbers are all 0.
bool HoldsFor(const wire::KeyValue& kv, const wire::Compare& compare) {
  // A member of the union that does not belong to the target counts as not set.
  const auto number = [&compare](uint32_t field) {
    return compare.union_field == field ? compare.union_number : 0;
  };
  int order = 0;
  switch (static_cast<wire::CompareTarget>(compare.target)) {
    case wire::CompareTarget::kVersion:
      order = Order(kv.version, number(4));
      break;
    case wire::CompareTarget::kCreate:
      order = Order(kv.create_revision, number(5));
      break;
    case wire::CompareTarget::kMod:
      order = Order(kv.mod_revision, number(6));
      break;
    case wire::CompareTarget::kValue:
      order = kv.value.compare(compare.union_field == 7 ? compare.union_value : "");
      break;
    case wire::CompareTarget::kLease:
      order = Order(kv.lease, number(8));
      break;
  }
  switch (static_cast<wire::CompareResult>(compare.result)) {
    case wire::CompareResult::kEqual:
      return order == 0;
    case wire::CompareResult::kGreater:
      return order > 0;
    case wire::CompareResult::kLess:
      return order < 0;
    case wire::CompareResult::kNotEqual:
      return order != 0;
  }
  return true;  // a result that nobody knows always holds
}

}  // namespace

bool Holds(const mvcc::Store& store, const wire::Compare& compare) {
  bool any = false;
  bool holds = true;
  if (compare.range_end.empty()) {
    const mvcc::Record* const record = store.Get(compare.key);
    any = record != nullptr;
    if (any) holds = HoldsFor(View(*record), compare);
  } else {
    const mvcc::KeyRange range = mvcc::KeyRange::FromRequest(compare.key, compare.range_end);
    store.ForEach(range, mvcc::kLatest, [&](const mvcc::Record& record) {
      any = true;
      holds = HoldsFor(View(record), compare);
      return holds;
    });
  }
  if (any) return holds;
  // There is no value to compare with, not even an empty one.
  if (compare.target == static_cast<int32_t>(wire::CompareTarget::kValue)) return false;
  return HoldsFor(wire::KeyValue(), compare);
}

void TxnExecution::Decide(const wire::TxnRequest& txn) {
  bool succeeded = true;
  std::string_view message;
  for (wire::MessageCursor cursor = txn.compares(); succeeded && cursor.Next(&message);) {
    wire::Compare compare;
    CONCLAVE_CHECK(wire::Parse(message, &compare), "a transaction that ValidTxn has not seen");
    succeeded = Holds(*store_, compare) || MUTANT("compare-ignored");
  }
  path_.push_back(succeeded);
  for (wire::MessageCursor cursor = txn.branch(succeeded); cursor.Next(&message);) {
    const wire::RequestOp op = Operation(message);
    if (op.kind() == wire::RequestOp::Kind::kTxn) Decide(op.txn());
  }
}

// Of several faults the first one of a put is told, as etcd does.
const wire::Error* TxnExecution::Check() {
  for (const Checked what : {Checked::kPuts, Checked::kRanges}) {
    path_at_ = 0;
    deleted_from_.reset();
    if (const wire::Error* error = Check(request_, what)) return error;
  }
  return nullptr;
}

const wire::Error* TxnExecution::Check(const wire::TxnRequest& txn, Checked what) {
  std::string_view message;
  for (wire::MessageCursor cursor = txn.branch(path_[path_at_++]); cursor.Next(&message);) {
    if (const wire::Error* error = CheckOp(Operation(message), what)) return error;
  }
  return nullptr;
}

const wire::Error* TxnExecution::CheckOp(const wire::RequestOp& op, Checked what) {
  switch (op.kind()) {
    case wire::RequestOp::Kind::kRange: {
      if (what != Checked::kRanges) return nullptr;
      wire::RangeRequest request;
      return op.GetRange(&request) ? CheckRange(request) : &wire::kErrMalformed;
    }
    case wire::RequestOp::Kind::kPut: {
      if (what != Checked::kPuts) return nullptr;
      wire::PutRequest request;
      return op.GetPut(&request) ? CheckPut(request) : &wire::kErrMalformed;
    }
    case wire::RequestOp::Kind::kDeleteRange: {
      wire::DeleteRangeRequest request;
      if (!op.GetDeleteRange(&request)) return &wire::kErrMalformed;
      if (request.range_end == std::string_view("\0", 1)) {
        deleted_from_ = std::min(deleted_from_.value_or(request.key), request.key);
      }
      return nullptr;
    }
    case wire::RequestOp::Kind::kTxn:
      return Check(op.txn(), what);
    case wire::RequestOp::Kind::kNone:
      break;
  }
  return nullptr;
}

// Unlike a plain range, a negative revision is one that was compacted.
const wire::Error* TxnExecution::CheckRange(const wire::RangeRequest& request) const {
  if (request.revision == 0) return nullptr;
  if (request.revision > store_->current_revision()) return &wire::kErrFutureRevision;
  if (request.revision < store_->compact_revision()) {
    REACHED("apply: a transaction reads what is compacted");
    // Whether it is freed yet is this member's own affair.
    if (MUTANT("transaction-reads-what-is-not-freed-yet") && store_->compaction_pending()) {
      return nullptr;
    }
    return &wire::kErrCompacted;
  }
  return nullptr;
}

const wire::Error* TxnExecution::CheckPut(const wire::PutRequest& request) const {
  if (request.ignore_value || request.ignore_lease) {
    if (store_->Get(request.key) == nullptr) return &wire::kErrKeyNotFound;
    // WritesOverlap does not hold an open-ended delete against the puts behind it.
    if (deleted_from_.has_value() && request.key >= *deleted_from_) return &wire::kErrKeyNotFound;
  }
  if (request.lease != lease::kNoLease && !lessor_->Exists(request.lease)) {
    return &wire::kErrLeaseNotFound;
  }
  return nullptr;
}

void TxnExecution::Execute(TxnWriter* writer, wire::Builder* builder) {
  writer_ = writer;
  builder_ = builder;
  path_at_ = 0;
  Execute(request_);
}

void TxnExecution::Execute(const wire::TxnRequest& txn) {
  const bool succeeded = path_[path_at_++];
  if (builder_ != nullptr) builder_->AppendNumber(2, uint64_t{succeeded});
  std::string_view message;
  for (wire::MessageCursor cursor = txn.branch(succeeded); cursor.Next(&message);) {
    const wire::RequestOp op = Operation(message);
    if (builder_ == nullptr) {
      ExecuteOp(op);
      continue;
    }
    const size_t response_op = builder_->BeginMessage(3);
    if (op.kind() != wire::RequestOp::Kind::kNone) {
      const size_t response = builder_->BeginMessage(static_cast<uint32_t>(op.kind()));
      ExecuteOp(op);
      builder_->EndMessage(response);
    }
    builder_->EndMessage(response_op);
  }
}

int64_t TxnExecution::revision() const {
  return writer_ == nullptr ? store_->current_revision() : writer_->revision();
}

void TxnExecution::ExecuteOp(const wire::RequestOp& op) {
  bool valid = true;
  switch (op.kind()) {
    case wire::RequestOp::Kind::kRange: {
      wire::RangeRequest request;
      valid = op.GetRange(&request);
      if (builder_ != nullptr) ExecuteRange(request);
      break;
    }
    case wire::RequestOp::Kind::kPut: {
      wire::PutRequest request;
      valid = op.GetPut(&request);
      const mvcc::RecordRef previous = writer_->Put(request);
      if (builder_ == nullptr) break;
      wire::AppendRevisionHeader(builder_, revision());
      if (request.prev_kv && previous) wire::AppendKeyValue(builder_, 2, View(*previous));
      break;
    }
    case wire::RequestOp::Kind::kDeleteRange: {
      wire::DeleteRangeRequest request;
      valid = op.GetDeleteRange(&request);
      const std::vector<mvcc::RecordRef> deleted = writer_->DeleteRange(request);
      if (builder_ == nullptr) break;
      wire::AppendRevisionHeader(builder_, revision());
      builder_->AppendNumber(2, uint64_t{deleted.size()});
      if (!request.prev_kv) break;
      for (const mvcc::RecordRef& record : deleted) {
        wire::AppendKeyValue(builder_, 3, View(*record));
      }
      break;
    }
    case wire::RequestOp::Kind::kTxn:
      // A nested transaction's header is there, and empty.
      if (builder_ != nullptr) wire::AppendHeader(builder_, wire::ResponseHeader());
      Execute(op.txn());
      break;
    case wire::RequestOp::Kind::kNone:
      break;
  }
  CONCLAVE_CHECK(valid, "a transaction that ValidTxn has not seen");
}

void TxnExecution::ExecuteRange(const wire::RangeRequest& request) {
  int64_t at = request.revision <= 0 ? mvcc::kLatest : request.revision;
  const bool wrote = writer_ != nullptr && writer_->wrote();
  if (at == store_->current_revision() && !wrote) at = mvcc::kLatest;
  wire::ResponseHeader header;
  header.revision = revision();
  AppendRange(*store_, request, at, header, builder_);
}

}  // namespace conclave::apply
