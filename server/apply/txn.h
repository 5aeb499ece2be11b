// TxnExecution: one transaction, from its compares to its response.
//
//   1. Decide: all compares, also of nested transactions on the way, against the state before it
//   2. Check:  everything that may refuse it, before the first write
//   3. Execute: the operations in order; a range sees the writes before it
//
// What it may write is up to the caller: StateMachine applies puts and deletes through it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/container/inlined_vector.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/writer.h"
#include "conclave/server/lease/lessor.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::apply {

// True if every key of the compare's range satisfies it.
[[nodiscard]] bool Holds(const mvcc::Store& store, const wire::Compare& compare);

// Does the writes of a transaction; all of them are allowed by then.
class TxnWriter {
 public:
  virtual ~TxnWriter() = default;
  virtual mvcc::RecordRef Put(const wire::PutRequest& request) = 0;
  virtual std::vector<mvcc::RecordRef> DeleteRange(const wire::DeleteRangeRequest& request) = 0;
  virtual bool wrote() const = 0;
  // What a response's header says now.
  virtual int64_t revision() const = 0;
};

class TxnExecution {
 public:
  // ValidTxn must have accepted the request. `store` must not change before Execute.
  TxnExecution(const mvcc::Store* store, const lease::Lessor* lessor, wire::TxnRequest request)
      : store_(store), lessor_(lessor), request_(request) {}

  void Decide() { Decide(request_); }
  [[nodiscard]] const wire::Error* Check();
  // `writer` is null for a transaction of reads. Appends `succeeded` and `responses`, without the
  // header, to `builder`; null: nobody wants them.
  void Execute(TxnWriter* writer, wire::Builder* builder);

 private:
  void Decide(const wire::TxnRequest& txn);
  enum class Checked : uint8_t { kPuts, kRanges };
  const wire::Error* Check(const wire::TxnRequest& txn, Checked what);
  const wire::Error* CheckOp(const wire::RequestOp& op, Checked what);
  const wire::Error* CheckRange(const wire::RangeRequest& request) const;
  const wire::Error* CheckPut(const wire::PutRequest& request) const;
  void Execute(const wire::TxnRequest& txn);
  void ExecuteOp(const wire::RequestOp& op);
  void ExecuteRange(const wire::RangeRequest& request);
  int64_t revision() const;

  const mvcc::Store* store_;
  const lease::Lessor* lessor_;
  wire::TxnRequest request_;
  // Which branch each transaction takes, in the order in which they are come upon; and the next
  // one's place.
  absl::InlinedVector<bool, 8> path_;
  size_t path_at_ = 0;
  // The lowest key from which on a delete before the operation in work removes everything.
  std::optional<std::string_view> deleted_from_;
  TxnWriter* writer_ = nullptr;
  wire::Builder* builder_ = nullptr;
};

}  // namespace conclave::apply
