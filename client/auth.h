// Auth: users, roles and permissions of a cluster, and whether it asks for them. docs/auth.md tells
// how they work together.
//
//   conclave::Auth auth = client.Auth();
//   auth.AddUser("root", password);
//   auth.GrantRole("root", "root");
//   auth.Enable();
//
// A handle on its client, as cheap to copy; thread-safe. Keys of permissions are the store's own:
// the client's name space does not count here. A change whose outcome is unknown is not repeated
// (IsOutcomeUnknown).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/types.h"

namespace conclave {

class ClientImpl;

class Auth {
 public:
  // FailedPrecondition, unless there is a user "root" who has the role "root".
  absl::Status Enable(const CallOptions& call = {}) const;
  absl::Status Disable(const CallOptions& call = {}) const;
  // Asks for no permission. Unimplemented: a server older than etcd 3.5.
  absl::StatusOr<AuthStatus> Status(const CallOptions& call = {}) const;

  // ---- Users. AlreadyExists, NotFound and the like come as FailedPrecondition, as servers say it.
  absl::Status AddUser(std::string_view user, std::string_view password,
                       const CallOptions& call = {}) const;
  // For users who come with a certificate only.
  absl::Status AddUserWithoutPassword(std::string_view user, const CallOptions& call = {}) const;
  absl::Status DeleteUser(std::string_view user, const CallOptions& call = {}) const;
  // Ends the user's tokens.
  absl::Status ChangePassword(std::string_view user, std::string_view password,
                              const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<std::string>> Users(const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<std::string>> RolesOf(std::string_view user,
                                                   const CallOptions& call = {}) const;
  absl::Status GrantRole(std::string_view user, std::string_view role,
                         const CallOptions& call = {}) const;
  absl::Status RevokeRole(std::string_view user, std::string_view role,
                          const CallOptions& call = {}) const;

  // ---- Roles
  absl::Status AddRole(std::string_view role, const CallOptions& call = {}) const;
  absl::Status DeleteRole(std::string_view role, const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<std::string>> Roles(const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<Permission>> PermissionsOf(std::string_view role,
                                                        const CallOptions& call = {}) const;
  absl::Status GrantPermission(std::string_view role, const Permission& permission,
                               const CallOptions& call = {}) const;
  // The range is that of a grant, as it was given.
  absl::Status RevokePermission(std::string_view role, const KeyRange& range,
                                const CallOptions& call = {}) const;

 private:
  friend class Client;
  explicit Auth(std::shared_ptr<ClientImpl> impl) : impl_(std::move(impl)) {}

  std::shared_ptr<ClientImpl> impl_;
};

}  // namespace conclave
