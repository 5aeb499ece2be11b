#include "conclave/server/apply/access.h"

#include "conclave/api/wire/requests.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/server/lease/lessor.h"

namespace conclave::apply {
namespace {

using wire::Method;
using Visit = absl::FunctionRef<bool(const Access&)>;

bool VisitRange(const wire::RangeRequest& range, Visit visit) {
  return visit({Access::Kind::kRead, range.key, range.range_end});
}

bool VisitPut(const wire::PutRequest& put, Visit visit) {
  if (!visit({Access::Kind::kWrite, put.key})) return false;
  // Whoever ends the lease ends all its keys; and with the key attached, its owner may end it.
  if (put.lease != lease::kNoLease &&
      !visit({.kind = Access::Kind::kWriteLease, .lease = put.lease})) {
    return false;
  }
  if (MUTANT("previous-value-without-permission")) return true;
  return !put.prev_kv || visit({Access::Kind::kRead, put.key});
}

bool VisitDelete(const wire::DeleteRangeRequest& range, Visit visit) {
  if (!visit({Access::Kind::kWrite, range.key, range.range_end})) return false;
  return !range.prev_kv || visit({Access::Kind::kRead, range.key, range.range_end});
}

bool VisitTxn(const wire::TxnRequest& txn, Visit visit);

bool VisitOp(const wire::RequestOp& op, Visit visit) {
  switch (op.kind()) {
    case wire::RequestOp::Kind::kRange: {
      wire::RangeRequest range;
      return op.GetRange(&range) && VisitRange(range, visit);
    }
    case wire::RequestOp::Kind::kPut: {
      wire::PutRequest put;
      return op.GetPut(&put) && VisitPut(put, visit);
    }
    case wire::RequestOp::Kind::kDeleteRange: {
      wire::DeleteRangeRequest range;
      return op.GetDeleteRange(&range) && VisitDelete(range, visit);
    }
    case wire::RequestOp::Kind::kTxn:
      return VisitTxn(op.txn(), visit);
    case wire::RequestOp::Kind::kNone:
      return true;
  }
  return false;
}

// Both branches, whichever will be taken: the answer would tell what the compares found. The depth
// is bounded by ValidTxn.
bool VisitTxn(const wire::TxnRequest& txn, Visit visit) {
  std::string_view message;
  for (wire::MessageCursor cursor = txn.compares(); cursor.Next(&message);) {
    wire::Compare compare;
    if (!wire::Parse(message, &compare)) return false;
    if (!visit({Access::Kind::kRead, compare.key, compare.range_end})) return false;
  }
  for (const bool branch : {true, false}) {
    if (MUTANT("second-branch-without-permission") && !branch) continue;
    for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
      wire::RequestOp op;
      if (!op.Merge(message) || !VisitOp(op, visit)) return false;
    }
  }
  return true;
}

}  // namespace

Need NeedOf(Method method) {
  switch (method) {
    case Method::kRange:
    case Method::kPut:
    case Method::kDeleteRange:
    case Method::kTxn:
    case Method::kLeaseRevoke:
    case Method::kLeaseTimeToLive:
    case Method::kLeaseLeases:
      return Need::kKeys;
    case Method::kLeaseGrant:
    case Method::kMemberList:
    case Method::kStatus:
      return Need::kUser;
    case Method::kAlarm:
      return Need::kAlarm;
    case Method::kAuthStatus:
    case Method::kAuthenticate:
      return Need::kNothing;
    case Method::kUserGet:
      return Need::kSelf;
    case Method::kRoleGet:
      return Need::kOwnRole;
    case Method::kCompact:
    case Method::kMemberAdd:
    case Method::kMemberRemove:
    case Method::kMemberUpdate:
    case Method::kMemberPromote:
    case Method::kDefragment:
    case Method::kHash:
    case Method::kHashKv:
    case Method::kMoveLeader:
    case Method::kDowngrade:
    case Method::kAuthEnable:
    case Method::kAuthDisable:
    case Method::kUserAdd:
    case Method::kUserList:
    case Method::kUserDelete:
    case Method::kUserChangePassword:
    case Method::kUserGrantRole:
    case Method::kUserRevokeRole:
    case Method::kRoleAdd:
    case Method::kRoleList:
    case Method::kRoleDelete:
    case Method::kRoleGrantPermission:
    case Method::kRoleRevokePermission:
      return Need::kRoot;
  }
  CONCLAVE_CHECK(false, "a method that does not exist: ", static_cast<int>(method));
  return Need::kRoot;
}

bool ForEachAccess(Method method, std::string_view request, Visit visit) {
  switch (method) {
    case Method::kRange: {
      wire::RangeRequest range;
      return wire::Parse(request, &range) && VisitRange(range, visit);
    }
    case Method::kPut: {
      wire::PutRequest put;
      return wire::Parse(request, &put) && VisitPut(put, visit);
    }
    case Method::kDeleteRange: {
      wire::DeleteRangeRequest range;
      return wire::Parse(request, &range) && VisitDelete(range, visit);
    }
    case Method::kTxn:
      return wire::ValidTxn(request) && VisitTxn(wire::TxnRequest(request), visit);
    case Method::kLeaseRevoke: {
      wire::LeaseRevokeRequest revoke;
      return wire::Parse(request, &revoke) &&
             visit({.kind = Access::Kind::kWriteLease, .lease = revoke.id});
    }
    case Method::kLeaseTimeToLive: {
      wire::LeaseTimeToLiveRequest ttl;
      if (!wire::Parse(request, &ttl)) return false;
      // Without its keys an answer tells no more than that there is such a lease.
      if (MUTANT("keys-of-a-lease-without-permission")) return true;
      return !ttl.keys || visit({.kind = Access::Kind::kReadLease, .lease = ttl.id});
    }
    case Method::kLeaseLeases:
      return visit({.kind = Access::Kind::kReadAllLeases});
    default:
      return false;  // no kKeys method
  }
}

}  // namespace conclave::apply
