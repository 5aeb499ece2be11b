// AuthStore: users, roles and permissions, as etcd has them; part of the replicated state.
//
// Every change that is made moves the auth revision on by one, except for the enabling. What a user
// may touch is the union of what his roles grant; role "root" grants everything. Nothing is allowed
// that no role grants.
//
// Passwords come in as bcrypt hashes only; making and comparing them (password.h) takes far too
// long for a function of the replicated state.
//
// Thread: its owner's. Limits: none of its own; each user and role was a request of bounded size,
// by root.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "conclave/server/auth/key_set.h"

namespace conclave::auth {

inline constexpr std::string_view kRoot = "root";  // the user, and the role

// Why something is refused. etcd's errors, by name.
enum class Refusal : uint8_t {
  kNone,
  kRootUserMissing,
  kRootRoleMissing,
  kUserExists,
  kUserEmpty,
  kUserNotFound,
  kRoleExists,
  kRoleEmpty,
  kRoleNotFound,
  kRoleNotGranted,
  kPermissionNotGiven,
  kPermissionNotGranted,
  kPermissionDenied,
  kAuthFailed,
  kNoPasswordUser,
  kAuthNotEnabled,
  kInvalidManagement,
  kOldRevision,
};

// As the protocol numbers them.
enum class PermissionType : uint8_t { kRead = 0, kWrite = 1, kReadWrite = 2 };

struct Permission {
  PermissionType type = PermissionType::kRead;
  std::string key;
  std::string range_end;

  friend bool operator==(const Permission&, const Permission&) = default;
};

struct User {
  std::string password_hash;
  bool no_password = false;  // nobody can log in with a password
  absl::btree_set<std::string> roles;

  friend bool operator==(const User&, const User&) = default;
};

struct Role {
  std::vector<Permission> permissions;  // by key; of one key, in the order of granting

  friend bool operator==(const Role&, const Role&) = default;
};

// Who asks, as of which auth revision. Nobody: no name, revision 0.
struct Identity {
  std::string user;
  uint64_t revision = 0;
  // The revision is part of what the client has shown (a JWT), so it cannot be brought up to date
  // for him.
  bool bound = false;

  friend bool operator==(const Identity&, const Identity&) = default;
};

class AuthStore {
 public:
  bool enabled() const { return enabled_; }
  uint64_t revision() const { return revision_; }
  const absl::btree_map<std::string, User>& users() const { return users_; }
  const absl::btree_map<std::string, Role>& roles() const { return roles_; }
  const User* FindUser(std::string_view name) const;
  const Role* FindRole(std::string_view name) const;
  // Nothing was ever changed.
  bool pristine() const { return !enabled_ && revision_ == 1 && users_.empty() && roles_.empty(); }

  // ---- Changes

  [[nodiscard]] Refusal Enable();
  void Disable();
  [[nodiscard]] Refusal AddUser(std::string_view name, std::string_view password_hash,
                                bool no_password);
  [[nodiscard]] Refusal DeleteUser(std::string_view name);
  [[nodiscard]] Refusal ChangePassword(std::string_view name, std::string_view password_hash);
  [[nodiscard]] Refusal GrantRole(std::string_view user, std::string_view role);
  [[nodiscard]] Refusal RevokeRole(std::string_view user, std::string_view role);
  [[nodiscard]] Refusal AddRole(std::string_view name);
  [[nodiscard]] Refusal DeleteRole(std::string_view name);
  [[nodiscard]] Refusal GrantPermission(std::string_view role, Permission permission);
  [[nodiscard]] Refusal RevokePermission(std::string_view role, std::string_view key,
                                         std::string_view range_end);

  // From a snapshot: replaces everything.
  void Restore(bool enabled, uint64_t revision, absl::btree_map<std::string, User> users,
               absl::btree_map<std::string, Role> roles);

  // ---- Checks; kNone, always, while not enabled

  // Somebody who has authenticated, and still exists.
  [[nodiscard]] Refusal CheckUser(const Identity& who) const;
  [[nodiscard]] Refusal CheckRoot(const Identity& who) const;
  [[nodiscard]] Refusal CheckRead(const Identity& who, std::string_view key,
                                  std::string_view range_end) const;
  [[nodiscard]] Refusal CheckWrite(const Identity& who, std::string_view key,
                                   std::string_view range_end) const;

  bool HasRole(std::string_view user, std::string_view role) const;

 private:
  struct Reach {
    KeySet read;
    KeySet write;
  };

  void Changed();
  const Reach& ReachOf(std::string_view name, const User& user) const;

  bool enabled_ = false;
  uint64_t revision_ = 1;
  absl::btree_map<std::string, User> users_;
  absl::btree_map<std::string, Role> roles_;
  // What users may touch, as far as it was asked for since the last change. Looked up, never
  // walked.
  mutable absl::flat_hash_map<std::string, Reach> reaches_;
};

}  // namespace conclave::auth
