#include "conclave/server/apply/quota.h"

#include <algorithm>

#include "conclave/api/wire/requests.h"

namespace conclave::apply {
namespace {

// As etcd counts.
constexpr int64_t kPutOverhead = 256;
constexpr int64_t kLeaseCost = 64;

int64_t PutCost(const wire::PutRequest& request) {
  return kPutOverhead + static_cast<int64_t>(request.key.size() + request.value.size());
}

int64_t TxnCost(const wire::TxnRequest& txn);

int64_t BranchCost(const wire::TxnRequest& txn, bool branch) {
  int64_t cost = 0;
  std::string_view message;
  for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
    wire::RequestOp op;
    wire::PutRequest put;
    if (!op.Merge(message)) continue;
    if (op.kind() == wire::RequestOp::Kind::kPut && op.GetPut(&put)) cost += PutCost(put);
    if (op.kind() == wire::RequestOp::Kind::kTxn) cost += TxnCost(op.txn());
  }
  return cost;
}

// The recursion is bounded by ValidTxn.
int64_t TxnCost(const wire::TxnRequest& txn) {
  return std::max(BranchCost(txn, true), BranchCost(txn, false));
}

}  // namespace

int64_t QuotaCost(wire::Method method, std::string_view request) {
  switch (method) {
    case wire::Method::kPut: {
      wire::PutRequest put;
      return wire::Parse(request, &put) ? PutCost(put) : 0;
    }
    case wire::Method::kTxn:
      return TxnCost(wire::TxnRequest(request));
    case wire::Method::kLeaseGrant:
      return kLeaseCost;
    default:
      return 0;
  }
}

bool FitsQuota(wire::Method method, std::string_view request, int64_t live_bytes,
               int64_t quota_bytes) {
  // No operation is encoded in less than two bytes: far from the quota nothing has to be counted.
  const auto most = static_cast<int64_t>(request.size() + 1) * kPutOverhead;
  if (live_bytes + most < quota_bytes) return true;
  const int64_t cost = QuotaCost(method, request);
  return cost == 0 || live_bytes + cost < quota_bytes;
}

}  // namespace conclave::apply
