#include "conclave/server/apply/check.h"

#include <algorithm>

#include "conclave/api/wire/auth.h"
#include "conclave/api/wire/requests.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/apply/txn_intervals.h"
#include "conclave/server/auth/password.h"
#include "conclave/server/lease/lessor.h"

namespace conclave::apply {
namespace {

using wire::Error;
using wire::Method;

RequestCheck Refuse(const Error* error) { return {error, Route::kPropose}; }
RequestCheck Take(Route route) { return {nullptr, route}; }

const Error* CheckRange(const wire::RangeRequest& request) {
  if (request.key.empty()) return &wire::kErrEmptyKey;
  if (request.sort_order < 0 || request.sort_order > 2) return &wire::kErrInvalidSortOption;
  if (request.sort_target < 0 || request.sort_target > 4) return &wire::kErrInvalidSortOption;
  return nullptr;
}

const Error* CheckPut(const wire::PutRequest& request) {
  if (request.key.empty()) return &wire::kErrEmptyKey;
  if (request.ignore_value && !request.value.empty()) return &wire::kErrValueProvided;
  if (request.ignore_lease && request.lease != 0) return &wire::kErrLeaseProvided;
  return nullptr;
}

const Error* CheckDeleteRange(const wire::DeleteRangeRequest& request) {
  return request.key.empty() ? &wire::kErrEmptyKey : nullptr;
}

size_t CountMessages(wire::MessageCursor cursor) {
  size_t count = 0;
  for (std::string_view message; cursor.Next(&message);) ++count;
  return count;
}

// What the operations of a transaction, in every depth, amount to.
struct TxnTraits {
  bool writes = false;              // a put or a delete
  bool linearizable_range = false;  // a range that is not serializable
};

const Error* CheckTxnOps(const wire::TxnRequest& txn, int64_t ops_max, TxnTraits* traits);

const Error* CheckRequestOp(const wire::RequestOp& op, int64_t ops_max, TxnTraits* traits) {
  switch (op.kind()) {
    case wire::RequestOp::Kind::kRange: {
      wire::RangeRequest request;
      if (!op.GetRange(&request)) return &wire::kErrMalformed;
      traits->linearizable_range |= !request.serializable;
      return CheckRange(request);
    }
    case wire::RequestOp::Kind::kPut: {
      wire::PutRequest request;
      if (!op.GetPut(&request)) return &wire::kErrMalformed;
      traits->writes = true;
      return CheckPut(request);
    }
    case wire::RequestOp::Kind::kDeleteRange: {
      wire::DeleteRangeRequest request;
      if (!op.GetDeleteRange(&request)) return &wire::kErrMalformed;
      traits->writes = true;
      return CheckDeleteRange(request);
    }
    case wire::RequestOp::Kind::kTxn:
      return CheckTxnOps(op.txn(), ops_max, traits);
    case wire::RequestOp::Kind::kNone:
      break;
  }
  return &wire::kErrKeyNotFound;  // an operation that is none
}

// The depth of the recursion is bounded by ValidTxn.
const Error* CheckTxnOps(const wire::TxnRequest& txn, int64_t ops_max, TxnTraits* traits) {
  const size_t most = std::max(
      {CountMessages(txn.compares()), CountMessages(txn.success()), CountMessages(txn.failure())});
  const auto operations = static_cast<int64_t>(most);
  if (operations > ops_max) return &wire::kErrTooManyOps;
  std::string_view message;
  for (wire::MessageCursor cursor = txn.compares(); cursor.Next(&message);) {
    wire::Compare compare;
    if (!wire::Parse(message, &compare)) return &wire::kErrMalformed;
    if (compare.key.empty()) return &wire::kErrEmptyKey;
  }
  for (const bool branch : {true, false}) {
    for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
      wire::RequestOp op;
      if (!op.Merge(message)) return &wire::kErrMalformed;
      // What nested transactions may have is what this one leaves.
      if (const Error* error = CheckRequestOp(op, ops_max - operations, traits)) return error;
    }
  }
  return nullptr;
}

RequestCheck CheckTxn(std::string_view encoded, const RequestLimits& limits) {
  if (!wire::ValidTxn(encoded)) return Refuse(&wire::kErrMalformed);
  const wire::TxnRequest txn(encoded);
  TxnTraits traits;
  const auto ops_max = static_cast<int64_t>(limits.txn_ops_max);
  if (const Error* error = CheckTxnOps(txn, ops_max, &traits)) return Refuse(error);
  if (WritesOverlap(txn)) return Refuse(&wire::kErrDuplicateKey);
  if (traits.writes) return Take(Route::kPropose);
  // A transaction without any range counts as serializable, as in etcd.
  return Take(traits.linearizable_range ? Route::kRead : Route::kReadLocal);
}

template <typename Request>
RequestCheck CheckParsed(std::string_view encoded, Route route) {
  Request request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  return Take(route);
}

RequestCheck CheckEmpty(std::string_view encoded, Route route) {
  return wire::ValidEmpty(encoded) ? Take(route) : Refuse(&wire::kErrMalformed);
}

RequestCheck CheckLeaseGrant(std::string_view encoded) {
  wire::LeaseGrantRequest request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  if (request.ttl_s > lease::kMaxTtlSeconds) return Refuse(&wire::kErrLeaseTtlTooLarge);
  return Take(Route::kPropose);
}

RequestCheck CheckAlarm(std::string_view encoded) {
  wire::AlarmRequest request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  const bool writes = request.action == static_cast<int32_t>(wire::AlarmAction::kActivate) ||
                      request.action == static_cast<int32_t>(wire::AlarmAction::kDeactivate);
  return Take(writes ? Route::kPropose : Route::kRead);
}

RequestCheck CheckDowngrade(std::string_view encoded) {
  wire::DowngradeRequest request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  switch (static_cast<wire::DowngradeAction>(request.action)) {
    case wire::DowngradeAction::kValidate:
      return Take(Route::kRead);
    case wire::DowngradeAction::kEnable:
    case wire::DowngradeAction::kCancel:
      return Take(Route::kPropose);
  }
  return Refuse(&wire::kErrUnknownMethod);
}

RequestCheck CheckUserAdd(std::string_view encoded) {
  wire::AuthUserAddRequest request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  if (!request.no_password && !auth::HashablePassword(request.password)) {
    return Refuse(&wire::kErrBadPassword);
  }
  return Take(Route::kPassword);
}

RequestCheck CheckChangePassword(std::string_view encoded) {
  wire::AuthUserChangePasswordRequest request;
  if (!wire::Parse(encoded, &request)) return Refuse(&wire::kErrMalformed);
  if (!auth::HashablePassword(request.password)) return Refuse(&wire::kErrBadPassword);
  return Take(Route::kPassword);
}

RequestCheck CheckAuth(Method method, std::string_view request) {
  switch (method) {
    case Method::kAuthEnable:
    case Method::kAuthDisable:
      return CheckEmpty(request, Route::kPropose);
    case Method::kAuthStatus:
    case Method::kUserList:
    case Method::kRoleList:
      return CheckEmpty(request, Route::kRead);
    case Method::kAuthenticate:
      return CheckParsed<wire::AuthenticateRequest>(request, Route::kPassword);
    case Method::kUserAdd:
      return CheckUserAdd(request);
    case Method::kUserChangePassword:
      return CheckChangePassword(request);
    case Method::kUserGet:
    case Method::kRoleGet:
      return CheckParsed<wire::AuthNameRequest>(request, Route::kRead);
    case Method::kUserDelete:
    case Method::kRoleAdd:
    case Method::kRoleDelete:
      return CheckParsed<wire::AuthNameRequest>(request, Route::kPropose);
    case Method::kUserGrantRole:
    case Method::kUserRevokeRole:
      return CheckParsed<wire::AuthUserRoleRequest>(request, Route::kPropose);
    case Method::kRoleGrantPermission:
      return CheckParsed<wire::AuthRoleGrantPermissionRequest>(request, Route::kPropose);
    case Method::kRoleRevokePermission:
      return CheckParsed<wire::AuthRoleRevokePermissionRequest>(request, Route::kPropose);
    default:
      return Refuse(&wire::kErrUnimplemented);
  }
}

RequestCheck CheckMemberChange(Method method, std::string_view encoded) {
  MemberChange change;
  return {ParseMemberChange(method, encoded, &change), Route::kNode};
}

RequestCheck CheckShape(Method method, std::string_view request, const RequestLimits& limits) {
  switch (method) {
    case Method::kRange: {
      wire::RangeRequest range;
      if (!wire::Parse(request, &range)) return Refuse(&wire::kErrMalformed);
      if (const Error* error = CheckRange(range)) return Refuse(error);
      return Take(range.serializable ? Route::kReadLocal : Route::kRead);
    }
    case Method::kPut: {
      wire::PutRequest put;
      if (!wire::Parse(request, &put)) return Refuse(&wire::kErrMalformed);
      if (const Error* error = CheckPut(put)) return Refuse(error);
      return Take(Route::kPropose);
    }
    case Method::kDeleteRange: {
      wire::DeleteRangeRequest range;
      if (!wire::Parse(request, &range)) return Refuse(&wire::kErrMalformed);
      if (const Error* error = CheckDeleteRange(range)) return Refuse(error);
      return Take(Route::kPropose);
    }
    case Method::kTxn:
      return CheckTxn(request, limits);
    case Method::kCompact:
      return CheckParsed<wire::CompactionRequest>(request, Route::kPropose);
    case Method::kLeaseGrant:
      return CheckLeaseGrant(request);
    case Method::kLeaseRevoke:
      return CheckParsed<wire::LeaseRevokeRequest>(request, Route::kPropose);
    case Method::kLeaseTimeToLive:
      return CheckParsed<wire::LeaseTimeToLiveRequest>(request, Route::kLeader);
    case Method::kLeaseLeases:
      return CheckEmpty(request, Route::kReadLocal);
    case Method::kMemberList: {
      wire::MemberListRequest list;
      if (!wire::Parse(request, &list)) return Refuse(&wire::kErrMalformed);
      return Take(list.linearizable ? Route::kRead : Route::kReadLocal);
    }
    case Method::kAlarm:
      return CheckAlarm(request);
    case Method::kHash:
      return CheckEmpty(request, Route::kReadLocal);
    case Method::kHashKv:
      return CheckParsed<wire::HashKvRequest>(request, Route::kReadLocal);
    case Method::kStatus:
    case Method::kDefragment:
      return CheckEmpty(request, Route::kNode);
    case Method::kMoveLeader:
      return CheckParsed<wire::MoveLeaderRequest>(request, Route::kNode);
    case Method::kMemberAdd:
    case Method::kMemberRemove:
    case Method::kMemberUpdate:
    case Method::kMemberPromote:
      return CheckMemberChange(method, request);
    case Method::kDowngrade:
      return CheckDowngrade(request);
    case Method::kAuthEnable:
    case Method::kAuthDisable:
    case Method::kAuthStatus:
    case Method::kAuthenticate:
    case Method::kUserAdd:
    case Method::kUserGet:
    case Method::kUserList:
    case Method::kUserDelete:
    case Method::kUserChangePassword:
    case Method::kUserGrantRole:
    case Method::kUserRevokeRole:
    case Method::kRoleAdd:
    case Method::kRoleGet:
    case Method::kRoleList:
    case Method::kRoleDelete:
    case Method::kRoleGrantPermission:
    case Method::kRoleRevokePermission:
      return CheckAuth(method, request);
  }
  return Refuse(&wire::kErrUnimplemented);
}

}  // namespace

RequestCheck CheckRequest(Method method, std::string_view request, const RequestLimits& limits) {
  const RequestCheck check = CheckShape(method, request, limits);
  if (check.error == nullptr &&
      (check.route == Route::kPropose || check.route == Route::kPassword) &&
      request.size() > limits.request_bytes_max) {
    return Refuse(&wire::kErrRequestTooLarge);
  }
  return check;
}

}  // namespace conclave::apply
