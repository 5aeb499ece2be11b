#include "conclave/client/auth.h"

#include <utility>

#include "conclave/client/client_impl.h"
#include "conclave/client/core/auth_calls.h"

namespace conclave {
namespace {

using calls::AuthChange;

absl::Status Change(const std::shared_ptr<ClientImpl>& impl, AuthChange change,
                    std::string_view first, std::string_view second, const CallOptions& call) {
  return WaitForCall<bool>(
             *impl, call,
             [change, first = std::string(first), second = std::string(second),
              deadline = impl->DeadlineOf(call)](Engine& engine, calls::Done<bool> done) {
               return calls::ChangeAuth(engine, change, first, second, deadline, std::move(done));
             })
      .status();
}

}  // namespace

absl::Status Auth::Enable(const CallOptions& call) const {
  return Change(impl_, AuthChange::kEnable, "", "", call);
}

absl::Status Auth::Disable(const CallOptions& call) const {
  return Change(impl_, AuthChange::kDisable, "", "", call);
}

absl::StatusOr<AuthStatus> Auth::Status(const CallOptions& call) const {
  return WaitForCall<AuthStatus>(
      *impl_, call,
      [deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<AuthStatus> done) {
        return calls::GetAuthStatus(engine, deadline, std::move(done));
      });
}

absl::Status Auth::AddUser(std::string_view user, std::string_view password,
                           const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserAdd, user, password, call);
}

absl::Status Auth::AddUserWithoutPassword(std::string_view user, const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserAddNoPassword, user, "", call);
}

absl::Status Auth::DeleteUser(std::string_view user, const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserDelete, user, "", call);
}

absl::Status Auth::ChangePassword(std::string_view user, std::string_view password,
                                  const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserChangePassword, user, password, call);
}

absl::StatusOr<std::vector<std::string>> Auth::Users(const CallOptions& call) const {
  return WaitForCall<std::vector<std::string>>(
      *impl_, call,
      [deadline = impl_->DeadlineOf(call)](Engine& engine,
                                           calls::Done<std::vector<std::string>> done) {
        return calls::Users(engine, deadline, std::move(done));
      });
}

absl::StatusOr<std::vector<std::string>> Auth::RolesOf(std::string_view user,
                                                       const CallOptions& call) const {
  return WaitForCall<std::vector<std::string>>(
      *impl_, call,
      [user = std::string(user), deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<std::vector<std::string>> done) {
        return calls::UserRoles(engine, user, deadline, std::move(done));
      });
}

absl::Status Auth::GrantRole(std::string_view user, std::string_view role,
                             const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserGrantRole, user, role, call);
}

absl::Status Auth::RevokeRole(std::string_view user, std::string_view role,
                              const CallOptions& call) const {
  return Change(impl_, AuthChange::kUserRevokeRole, user, role, call);
}

absl::Status Auth::AddRole(std::string_view role, const CallOptions& call) const {
  return Change(impl_, AuthChange::kRoleAdd, role, "", call);
}

absl::Status Auth::DeleteRole(std::string_view role, const CallOptions& call) const {
  return Change(impl_, AuthChange::kRoleDelete, role, "", call);
}

absl::StatusOr<std::vector<std::string>> Auth::Roles(const CallOptions& call) const {
  return WaitForCall<std::vector<std::string>>(
      *impl_, call,
      [deadline = impl_->DeadlineOf(call)](Engine& engine,
                                           calls::Done<std::vector<std::string>> done) {
        return calls::Roles(engine, deadline, std::move(done));
      });
}

absl::StatusOr<std::vector<Permission>> Auth::PermissionsOf(std::string_view role,
                                                            const CallOptions& call) const {
  return WaitForCall<std::vector<Permission>>(
      *impl_, call,
      [role = std::string(role), deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<std::vector<Permission>> done) {
        return calls::RolePermissions(engine, role, deadline, std::move(done));
      });
}

absl::Status Auth::GrantPermission(std::string_view role, const Permission& permission,
                                   const CallOptions& call) const {
  return WaitForCall<bool>(
             *impl_, call,
             [role = std::string(role), permission, deadline = impl_->DeadlineOf(call)](
                 Engine& engine, calls::Done<bool> done) {
               return calls::GrantPermission(engine, role, permission, deadline, std::move(done));
             })
      .status();
}

absl::Status Auth::RevokePermission(std::string_view role, const KeyRange& range,
                                    const CallOptions& call) const {
  return WaitForCall<bool>(*impl_, call,
                           [role = std::string(role), range, deadline = impl_->DeadlineOf(call)](
                               Engine& engine, calls::Done<bool> done) {
                             return calls::RevokePermission(engine, role, range, deadline,
                                                            std::move(done));
                           })
      .status();
}

}  // namespace conclave
