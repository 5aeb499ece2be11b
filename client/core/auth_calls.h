// The typed calls of the Auth service, as calls.h has those of the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conclave/client/core/calls.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave::calls {

enum class AuthChange {
  kEnable,
  kDisable,
  kUserAdd,             // first: the user; second: the password
  kUserAddNoPassword,   // first: the user
  kUserDelete,          // first: the user
  kUserChangePassword,  // first: the user; second: the password
  kUserGrantRole,       // first: the user; second: the role
  kUserRevokeRole,      // first: the user; second: the role
  kRoleAdd,             // first: the role
  kRoleDelete,          // first: the role
};

// The answer of changes says nothing but that it is done.
CallId ChangeAuth(Engine& engine, AuthChange change, const std::string& first,
                  const std::string& second, Instant deadline, Done<bool> done);
CallId GrantPermission(Engine& engine, const std::string& role, const Permission& permission,
                       Instant deadline, Done<bool> done);
CallId RevokePermission(Engine& engine, const std::string& role, const KeyRange& range,
                        Instant deadline, Done<bool> done);

CallId GetAuthStatus(Engine& engine, Instant deadline, Done<AuthStatus> done);
CallId UserRoles(Engine& engine, const std::string& user, Instant deadline,
                 Done<std::vector<std::string>> done);
CallId Users(Engine& engine, Instant deadline, Done<std::vector<std::string>> done);
CallId Roles(Engine& engine, Instant deadline, Done<std::vector<std::string>> done);
CallId RolePermissions(Engine& engine, const std::string& role, Instant deadline,
                       Done<std::vector<Permission>> done);

}  // namespace conclave::calls
