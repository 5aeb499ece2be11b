#include "conclave/client/core/auth_calls.h"

#include <utility>

#include "conclave/client/core/send.h"

namespace conclave::calls {
namespace {

namespace pb = etcdserverpb;

// A change is a write: one whose outcome is unknown is not made a second time.
template <typename Response>
CallId Change(Engine& engine, std::string_view method, Instant deadline,
              const google::protobuf::MessageLite& request, Done<bool> done) {
  return Send<Response>(engine, {.method = method, .kind = CallKind::kWrite, .deadline = deadline},
                        request, std::move(done), [](Response&) { return true; });
}

template <typename Names>
std::vector<std::string> Listed(const Names& names) {
  return {names.begin(), names.end()};
}

}  // namespace

CallId ChangeAuth(Engine& engine, AuthChange change, const std::string& first,
                  const std::string& second, Instant deadline, Done<bool> done) {
  switch (change) {
    case AuthChange::kEnable:
      return Change<pb::AuthEnableResponse>(engine, "/etcdserverpb.Auth/AuthEnable", deadline,
                                            pb::AuthEnableRequest(), std::move(done));
    case AuthChange::kDisable:
      return Change<pb::AuthDisableResponse>(engine, "/etcdserverpb.Auth/AuthDisable", deadline,
                                             pb::AuthDisableRequest(), std::move(done));
    case AuthChange::kUserAdd:
    case AuthChange::kUserAddNoPassword: {
      pb::AuthUserAddRequest request;
      request.set_name(first);
      request.set_password(second);
      request.mutable_options()->set_no_password(change == AuthChange::kUserAddNoPassword);
      return Change<pb::AuthUserAddResponse>(engine, "/etcdserverpb.Auth/UserAdd", deadline,
                                             request, std::move(done));
    }
    case AuthChange::kUserDelete: {
      pb::AuthUserDeleteRequest request;
      request.set_name(first);
      return Change<pb::AuthUserDeleteResponse>(engine, "/etcdserverpb.Auth/UserDelete", deadline,
                                                request, std::move(done));
    }
    case AuthChange::kUserChangePassword: {
      pb::AuthUserChangePasswordRequest request;
      request.set_name(first);
      request.set_password(second);
      return Change<pb::AuthUserChangePasswordResponse>(
          engine, "/etcdserverpb.Auth/UserChangePassword", deadline, request, std::move(done));
    }
    case AuthChange::kUserGrantRole: {
      pb::AuthUserGrantRoleRequest request;
      request.set_user(first);
      request.set_role(second);
      return Change<pb::AuthUserGrantRoleResponse>(engine, "/etcdserverpb.Auth/UserGrantRole",
                                                   deadline, request, std::move(done));
    }
    case AuthChange::kUserRevokeRole: {
      pb::AuthUserRevokeRoleRequest request;
      request.set_name(first);
      request.set_role(second);
      return Change<pb::AuthUserRevokeRoleResponse>(engine, "/etcdserverpb.Auth/UserRevokeRole",
                                                    deadline, request, std::move(done));
    }
    case AuthChange::kRoleAdd: {
      pb::AuthRoleAddRequest request;
      request.set_name(first);
      return Change<pb::AuthRoleAddResponse>(engine, "/etcdserverpb.Auth/RoleAdd", deadline,
                                             request, std::move(done));
    }
    case AuthChange::kRoleDelete: {
      pb::AuthRoleDeleteRequest request;
      request.set_role(first);
      return Change<pb::AuthRoleDeleteResponse>(engine, "/etcdserverpb.Auth/RoleDelete", deadline,
                                                request, std::move(done));
    }
  }
  return Refuse(engine, absl::InvalidArgumentError("no such change"), std::move(done));
}

CallId GrantPermission(Engine& engine, const std::string& role, const Permission& permission,
                       Instant deadline, Done<bool> done) {
  pb::AuthRoleGrantPermissionRequest request;
  request.set_name(role);
  request.mutable_perm()->set_permtype(
      static_cast<authpb::Permission::Type>(static_cast<int>(permission.access)));
  request.mutable_perm()->set_key(permission.range.key);
  request.mutable_perm()->set_range_end(permission.range.end);
  return Change<pb::AuthRoleGrantPermissionResponse>(
      engine, "/etcdserverpb.Auth/RoleGrantPermission", deadline, request, std::move(done));
}

CallId RevokePermission(Engine& engine, const std::string& role, const KeyRange& range,
                        Instant deadline, Done<bool> done) {
  pb::AuthRoleRevokePermissionRequest request;
  request.set_role(role);
  request.set_key(range.key);
  request.set_range_end(range.end);
  return Change<pb::AuthRoleRevokePermissionResponse>(
      engine, "/etcdserverpb.Auth/RoleRevokePermission", deadline, request, std::move(done));
}

CallId GetAuthStatus(Engine& engine, Instant deadline, Done<AuthStatus> done) {
  return Send<pb::AuthStatusResponse>(
      engine, {.method = "/etcdserverpb.Auth/AuthStatus", .deadline = deadline},
      pb::AuthStatusRequest(), std::move(done), [](pb::AuthStatusResponse& response) {
        return AuthStatus{.enabled = response.enabled(), .revision = response.authrevision()};
      });
}

CallId UserRoles(Engine& engine, const std::string& user, Instant deadline,
                 Done<std::vector<std::string>> done) {
  pb::AuthUserGetRequest request;
  request.set_name(user);
  return Send<pb::AuthUserGetResponse>(
      engine, {.method = "/etcdserverpb.Auth/UserGet", .deadline = deadline}, request,
      std::move(done), [](pb::AuthUserGetResponse& response) { return Listed(response.roles()); });
}

CallId Users(Engine& engine, Instant deadline, Done<std::vector<std::string>> done) {
  return Send<pb::AuthUserListResponse>(
      engine, {.method = "/etcdserverpb.Auth/UserList", .deadline = deadline},
      pb::AuthUserListRequest(), std::move(done),
      [](pb::AuthUserListResponse& response) { return Listed(response.users()); });
}

CallId Roles(Engine& engine, Instant deadline, Done<std::vector<std::string>> done) {
  return Send<pb::AuthRoleListResponse>(
      engine, {.method = "/etcdserverpb.Auth/RoleList", .deadline = deadline},
      pb::AuthRoleListRequest(), std::move(done),
      [](pb::AuthRoleListResponse& response) { return Listed(response.roles()); });
}

CallId RolePermissions(Engine& engine, const std::string& role, Instant deadline,
                       Done<std::vector<Permission>> done) {
  pb::AuthRoleGetRequest request;
  request.set_role(role);
  return Send<pb::AuthRoleGetResponse>(
      engine, {.method = "/etcdserverpb.Auth/RoleGet", .deadline = deadline}, request,
      std::move(done), [](pb::AuthRoleGetResponse& response) {
        std::vector<Permission> permissions;
        for (const authpb::Permission& each : response.perm()) {
          const int access = each.permtype();
          if (access < 0 || access > 2) continue;  // a kind that this client does not know
          permissions.push_back({.access = static_cast<Permission::Access>(access),
                                 .range = KeyRange(each.key(), each.range_end())});
        }
        return permissions;
      });
}

}  // namespace conclave::calls
