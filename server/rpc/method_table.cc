#include "conclave/server/rpc/method_table.h"

#include <algorithm>
#include <iterator>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace conclave::rpc {
namespace {

using node::Method;
using node::StreamKind;

constexpr MethodEntry Unary(const char* path, Method method, bool hot = false) {
  return {path, CallType::kUnary, Served::kNodeUnary, method, {}, hot};
}
constexpr MethodEntry Stream(const char* path, StreamKind kind) {
  return {path, CallType::kBidiStream, Served::kNodeStream, {}, kind, false};
}
constexpr MethodEntry ServerStream(const char* path, StreamKind kind) {
  return {path, CallType::kServerStream, Served::kNodeServerStream, {}, kind, false};
}
constexpr MethodEntry Door(const char* path, CallType type = CallType::kUnary) {
  return {path, type, Served::kDoor, {}, {}, false};
}

constexpr MethodEntry kMethods[] = {
    Unary("/etcdserverpb.KV/Range", Method::kRange, true),
    ServerStream("/etcdserverpb.KV/RangeStream", StreamKind::kRangeStream),
    Unary("/etcdserverpb.KV/Put", Method::kPut, true),
    Unary("/etcdserverpb.KV/DeleteRange", Method::kDeleteRange, true),
    Unary("/etcdserverpb.KV/Txn", Method::kTxn, true),
    Unary("/etcdserverpb.KV/Compact", Method::kCompact),
    Stream("/etcdserverpb.Watch/Watch", StreamKind::kWatch),
    Unary("/etcdserverpb.Lease/LeaseGrant", Method::kLeaseGrant, true),
    Unary("/etcdserverpb.Lease/LeaseRevoke", Method::kLeaseRevoke, true),
    Stream("/etcdserverpb.Lease/LeaseKeepAlive", StreamKind::kLeaseKeepAlive),
    Unary("/etcdserverpb.Lease/LeaseTimeToLive", Method::kLeaseTimeToLive),
    Unary("/etcdserverpb.Lease/LeaseLeases", Method::kLeaseLeases),
    Unary("/etcdserverpb.Cluster/MemberAdd", Method::kMemberAdd),
    Unary("/etcdserverpb.Cluster/MemberRemove", Method::kMemberRemove),
    Unary("/etcdserverpb.Cluster/MemberUpdate", Method::kMemberUpdate),
    Unary("/etcdserverpb.Cluster/MemberList", Method::kMemberList),
    Unary("/etcdserverpb.Cluster/MemberPromote", Method::kMemberPromote),
    Unary("/etcdserverpb.Maintenance/Alarm", Method::kAlarm),
    Unary("/etcdserverpb.Maintenance/Status", Method::kStatus),
    Unary("/etcdserverpb.Maintenance/Defragment", Method::kDefragment),
    Unary("/etcdserverpb.Maintenance/Hash", Method::kHash),
    Unary("/etcdserverpb.Maintenance/HashKV", Method::kHashKv),
    ServerStream("/etcdserverpb.Maintenance/Snapshot", StreamKind::kSnapshot),
    Unary("/etcdserverpb.Maintenance/MoveLeader", Method::kMoveLeader),
    Unary("/etcdserverpb.Maintenance/Downgrade", Method::kDowngrade),
    Unary("/etcdserverpb.Auth/AuthEnable", Method::kAuthEnable),
    Unary("/etcdserverpb.Auth/AuthDisable", Method::kAuthDisable),
    Unary("/etcdserverpb.Auth/AuthStatus", Method::kAuthStatus),
    Unary("/etcdserverpb.Auth/Authenticate", Method::kAuthenticate),
    Unary("/etcdserverpb.Auth/UserAdd", Method::kUserAdd),
    Unary("/etcdserverpb.Auth/UserGet", Method::kUserGet),
    Unary("/etcdserverpb.Auth/UserList", Method::kUserList),
    Unary("/etcdserverpb.Auth/UserDelete", Method::kUserDelete),
    Unary("/etcdserverpb.Auth/UserChangePassword", Method::kUserChangePassword),
    Unary("/etcdserverpb.Auth/UserGrantRole", Method::kUserGrantRole),
    Unary("/etcdserverpb.Auth/UserRevokeRole", Method::kUserRevokeRole),
    Unary("/etcdserverpb.Auth/RoleAdd", Method::kRoleAdd),
    Unary("/etcdserverpb.Auth/RoleGet", Method::kRoleGet),
    Unary("/etcdserverpb.Auth/RoleList", Method::kRoleList),
    Unary("/etcdserverpb.Auth/RoleDelete", Method::kRoleDelete),
    Unary("/etcdserverpb.Auth/RoleGrantPermission", Method::kRoleGrantPermission),
    Unary("/etcdserverpb.Auth/RoleRevokePermission", Method::kRoleRevokePermission),
    Door("/v3lockpb.Lock/Lock"),
    Door("/v3lockpb.Lock/Unlock"),
    Door("/v3electionpb.Election/Campaign"),
    Door("/v3electionpb.Election/Proclaim"),
    Door("/v3electionpb.Election/Leader"),
    Door("/v3electionpb.Election/Observe", CallType::kServerStream),
    Door("/v3electionpb.Election/Resign"),
    {"/grpc.health.v1.Health/Check", CallType::kUnary, Served::kHealthCheck},
    {"/grpc.health.v1.Health/Watch", CallType::kServerStream, Served::kHealthWatch},
};

}  // namespace

std::string_view MethodEntry::service() const {
  const std::string_view whole(path);
  return whole.substr(1, whole.rfind('/') - 1);
}

std::string_view MethodEntry::name() const {
  const std::string_view whole(path);
  return whole.substr(whole.rfind('/') + 1);
}

std::span<const MethodEntry> AllMethods() { return kMethods; }

const MethodEntry* FindMethod(std::string_view path) {
  static const auto* const kByPath = [] {
    auto* by_path = new absl::flat_hash_map<std::string_view, const MethodEntry*>;
    for (const MethodEntry& entry : kMethods) by_path->emplace(entry.path, &entry);
    return by_path;
  }();
  const auto found = kByPath->find(path);
  return found == kByPath->end() ? nullptr : found->second;
}

std::string RejectMessage(std::string_view path) {
  if (const MethodEntry* entry = FindMethod(path); entry != nullptr) {
    return absl::StrCat("conclave: ", std::string(entry->service()), "/",
                        std::string(entry->name()), " is not served here");
  }
  if (path.starts_with('/')) path.remove_prefix(1);
  const size_t slash = path.rfind('/');  // of a path with one part there is none left
  const std::string service(path.substr(0, slash));
  const std::string method(slash == std::string_view::npos ? "" : path.substr(slash + 1));
  const bool known =
      std::any_of(std::begin(kMethods), std::end(kMethods),
                  [&](const MethodEntry& entry) { return entry.service() == service; });
  if (!known) return absl::StrCat("unknown service ", service);
  return absl::StrCat("unknown method ", method, " for service ", service);
}

}  // namespace conclave::rpc
