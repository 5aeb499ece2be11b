// The Auth service's requests, as views into their encoding (requests.h), and its responses.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/responses.h"

namespace conclave::wire {

struct AuthenticateRequest {
  std::string_view name;
  std::string_view password;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct AuthUserAddRequest {
  std::string_view name;
  std::string_view password;
  bool no_password = false;  // options.no_password
  std::string_view hashed_password;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct AuthUserChangePasswordRequest {
  std::string_view name;
  std::string_view password;
  std::string_view hashed_password;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// The requests whose only field is a name: UserGet, UserDelete, RoleAdd, RoleGet, RoleDelete.
struct AuthNameRequest {
  std::string_view name;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// UserGrantRole and UserRevokeRole.
struct AuthUserRoleRequest {
  std::string_view user;
  std::string_view role;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct AuthPermission {
  int32_t type = 0;  // authpb.Permission.Type, or a number that is none
  std::string_view key;
  std::string_view range_end;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct AuthRoleGrantPermissionRequest {
  std::string_view name;
  bool has_permission = false;
  AuthPermission permission;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct AuthRoleRevokePermissionRequest {
  std::string_view role;
  std::string_view key;
  std::string_view range_end;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

[[nodiscard]] Bytes EncodeAuthStatus(const ResponseHeader& header, bool enabled, uint64_t revision);
[[nodiscard]] Bytes EncodeAuthenticate(const ResponseHeader& header, std::string_view token);
// UserGet (roles), UserList (users), RoleList (roles).
[[nodiscard]] Bytes EncodeAuthNames(const ResponseHeader& header,
                                    std::span<const std::string_view> names);
[[nodiscard]] Bytes EncodeAuthRoleGet(const ResponseHeader& header,
                                      std::span<const AuthPermission> permissions);

}  // namespace conclave::wire
