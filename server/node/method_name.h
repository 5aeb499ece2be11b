// The methods' names as the protocol has them, for log lines.
#pragma once

#include <string_view>

#include "conclave/api/wire/method.h"

namespace conclave::node {

constexpr std::string_view MethodName(wire::Method method) {
  using wire::Method;
  switch (method) {
    case Method::kRange:
      return "Range";
    case Method::kPut:
      return "Put";
    case Method::kDeleteRange:
      return "DeleteRange";
    case Method::kTxn:
      return "Txn";
    case Method::kCompact:
      return "Compact";
    case Method::kLeaseGrant:
      return "LeaseGrant";
    case Method::kLeaseRevoke:
      return "LeaseRevoke";
    case Method::kLeaseTimeToLive:
      return "LeaseTimeToLive";
    case Method::kLeaseLeases:
      return "LeaseLeases";
    case Method::kMemberAdd:
      return "MemberAdd";
    case Method::kMemberRemove:
      return "MemberRemove";
    case Method::kMemberUpdate:
      return "MemberUpdate";
    case Method::kMemberList:
      return "MemberList";
    case Method::kMemberPromote:
      return "MemberPromote";
    case Method::kAlarm:
      return "Alarm";
    case Method::kStatus:
      return "Status";
    case Method::kDefragment:
      return "Defragment";
    case Method::kHash:
      return "Hash";
    case Method::kHashKv:
      return "HashKV";
    case Method::kMoveLeader:
      return "MoveLeader";
    case Method::kDowngrade:
      return "Downgrade";
    case Method::kAuthEnable:
      return "AuthEnable";
    case Method::kAuthDisable:
      return "AuthDisable";
    case Method::kAuthStatus:
      return "AuthStatus";
    case Method::kAuthenticate:
      return "Authenticate";
    case Method::kUserAdd:
      return "UserAdd";
    case Method::kUserGet:
      return "UserGet";
    case Method::kUserList:
      return "UserList";
    case Method::kUserDelete:
      return "UserDelete";
    case Method::kUserChangePassword:
      return "UserChangePassword";
    case Method::kUserGrantRole:
      return "UserGrantRole";
    case Method::kUserRevokeRole:
      return "UserRevokeRole";
    case Method::kRoleAdd:
      return "RoleAdd";
    case Method::kRoleGet:
      return "RoleGet";
    case Method::kRoleList:
      return "RoleList";
    case Method::kRoleDelete:
      return "RoleDelete";
    case Method::kRoleGrantPermission:
      return "RoleGrantPermission";
    case Method::kRoleRevokePermission:
      return "RoleRevokePermission";
  }
  return "unknown";
}

// "etcdserverpb.KV" of Put.
constexpr std::string_view ServiceName(wire::Method method) {
  const std::string_view name = MethodName(method);
  for (const std::string_view key_value : {"Range", "Put", "DeleteRange", "Txn", "Compact"}) {
    if (name == key_value) return "etcdserverpb.KV";
  }
  if (name.starts_with("Lease")) return "etcdserverpb.Lease";
  if (name.starts_with("Member")) return "etcdserverpb.Cluster";
  for (const std::string_view prefix : {"Auth", "User", "Role"}) {
    if (name.starts_with(prefix)) return "etcdserverpb.Auth";
  }
  return "etcdserverpb.Maintenance";
}

}  // namespace conclave::node
