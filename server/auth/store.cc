#include "conclave/server/auth/store.h"

#include <algorithm>
#include <utility>

#include "conclave/base/mutant.h"

namespace conclave::auth {
namespace {

constexpr std::string_view kOpenEnd("\0", 1);

bool ValidRange(std::string_view key, std::string_view range_end) {
  if (key.empty()) return false;
  return range_end.empty() || range_end == kOpenEnd || range_end > key;
}

template <typename Permissions>
auto FindPermission(Permissions& permissions, std::string_view key, std::string_view range_end) {
  return std::find_if(permissions.begin(), permissions.end(), [&](const Permission& permission) {
    return permission.key == key && permission.range_end == range_end;
  });
}

}  // namespace

const User* AuthStore::FindUser(std::string_view name) const {
  const auto found = users_.find(std::string(name));
  return found == users_.end() ? nullptr : &found->second;
}

const Role* AuthStore::FindRole(std::string_view name) const {
  const auto found = roles_.find(std::string(name));
  return found == roles_.end() ? nullptr : &found->second;
}

void AuthStore::Changed() {
  ++revision_;
  if (!MUTANT("permissions-cached-for-ever")) reaches_.clear();
}

// ---- Changes ------------------------------------------------------------------------------------

Refusal AuthStore::Enable() {
  if (enabled_) return Refusal::kNone;
  const User* const root = FindUser(kRoot);
  if (root == nullptr) return Refusal::kRootUserMissing;
  if (!root->roles.contains(std::string(kRoot))) return Refusal::kRootRoleMissing;
  enabled_ = true;
  return Refusal::kNone;
}

void AuthStore::Disable() {
  if (!enabled_) return;
  enabled_ = false;
  Changed();
}

Refusal AuthStore::AddUser(std::string_view name, std::string_view password_hash,
                           bool no_password) {
  if (name.empty()) return Refusal::kUserEmpty;
  const auto [user, added] = users_.try_emplace(std::string(name));
  if (!added) return Refusal::kUserExists;
  user->second.no_password = no_password;
  if (!no_password) user->second.password_hash = std::string(password_hash);
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::DeleteUser(std::string_view name) {
  if (enabled_ && name == kRoot) return Refusal::kInvalidManagement;
  if (users_.erase(std::string(name)) == 0) return Refusal::kUserNotFound;
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::ChangePassword(std::string_view name, std::string_view password_hash) {
  const auto user = users_.find(std::string(name));
  if (user == users_.end()) return Refusal::kUserNotFound;
  if (!user->second.no_password) user->second.password_hash = std::string(password_hash);
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::GrantRole(std::string_view name, std::string_view role) {
  const auto user = users_.find(std::string(name));
  if (user == users_.end()) return Refusal::kUserNotFound;
  // Role root needs not exist: it grants everything by its name.
  if (role != kRoot && FindRole(role) == nullptr) return Refusal::kRoleNotFound;
  if (user->second.roles.insert(std::string(role)).second) Changed();
  return Refusal::kNone;
}

Refusal AuthStore::RevokeRole(std::string_view name, std::string_view role) {
  if (enabled_ && name == kRoot && role == kRoot) return Refusal::kInvalidManagement;
  const auto user = users_.find(std::string(name));
  if (user == users_.end()) return Refusal::kUserNotFound;
  if (user->second.roles.erase(std::string(role)) == 0) return Refusal::kRoleNotGranted;
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::AddRole(std::string_view name) {
  if (name.empty()) return Refusal::kRoleEmpty;
  if (!roles_.try_emplace(std::string(name)).second) return Refusal::kRoleExists;
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::DeleteRole(std::string_view name) {
  if (enabled_ && name == kRoot) return Refusal::kInvalidManagement;
  if (roles_.erase(std::string(name)) == 0) return Refusal::kRoleNotFound;
  for (auto& [user_name, user] : users_) user.roles.erase(std::string(name));
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::GrantPermission(std::string_view name, Permission permission) {
  if (!ValidRange(permission.key, permission.range_end)) return Refusal::kInvalidManagement;
  const auto role = roles_.find(std::string(name));
  if (role == roles_.end()) return Refusal::kRoleNotFound;
  std::vector<Permission>& permissions = role->second.permissions;
  const auto same = FindPermission(permissions, permission.key, permission.range_end);
  if (same != permissions.end()) {
    same->type = permission.type;
  } else {
    const auto place =
        std::upper_bound(permissions.begin(), permissions.end(), permission,
                         [](const Permission& a, const Permission& b) { return a.key < b.key; });
    permissions.insert(place, std::move(permission));
  }
  Changed();
  return Refusal::kNone;
}

Refusal AuthStore::RevokePermission(std::string_view name, std::string_view key,
                                    std::string_view range_end) {
  const auto role = roles_.find(std::string(name));
  if (role == roles_.end()) return Refusal::kRoleNotFound;
  std::vector<Permission>& permissions = role->second.permissions;
  const auto found = FindPermission(permissions, key, range_end);
  if (found == permissions.end()) return Refusal::kPermissionNotGranted;
  permissions.erase(found);
  Changed();
  return Refusal::kNone;
}

void AuthStore::Restore(bool enabled, uint64_t revision, absl::btree_map<std::string, User> users,
                        absl::btree_map<std::string, Role> roles) {
  enabled_ = enabled;
  revision_ = revision;
  users_ = std::move(users);
  roles_ = std::move(roles);
  reaches_.clear();
}

// ---- Checks -------------------------------------------------------------------------------------

bool AuthStore::HasRole(std::string_view user, std::string_view role) const {
  const User* const found = FindUser(user);
  return found != nullptr && found->roles.contains(std::string(role));
}

Refusal AuthStore::CheckUser(const Identity& who) const {
  if (!enabled_) return Refusal::kNone;
  if (who.user.empty() || who.revision == 0) return Refusal::kUserEmpty;
  if (who.revision < revision_) return Refusal::kOldRevision;
  return FindUser(who.user) == nullptr ? Refusal::kPermissionDenied : Refusal::kNone;
}

Refusal AuthStore::CheckRoot(const Identity& who) const {
  const Refusal refusal = CheckUser(who);
  // As etcd says it where root is wanted; where keys are, such a user is denied like any other.
  if (refusal == Refusal::kPermissionDenied) return Refusal::kUserNotFound;
  if (!enabled_ || refusal != Refusal::kNone) return refusal;
  return HasRole(who.user, kRoot) ? Refusal::kNone : Refusal::kPermissionDenied;
}

const AuthStore::Reach& AuthStore::ReachOf(std::string_view name, const User& user) const {
  const auto [found, fresh] = reaches_.try_emplace(std::string(name));
  if (!fresh) return found->second;
  for (const std::string& role_name : user.roles) {
    const Role* const role = FindRole(role_name);
    if (role == nullptr) continue;
    for (const Permission& permission : role->permissions) {
      if (permission.type != PermissionType::kWrite) {
        found->second.read.Add(permission.key, permission.range_end);
      }
      if (permission.type != PermissionType::kRead) {
        found->second.write.Add(permission.key, permission.range_end);
      }
    }
  }
  return found->second;
}

Refusal AuthStore::CheckRead(const Identity& who, std::string_view key,
                             std::string_view range_end) const {
  const Refusal refusal = CheckUser(who);
  if (!enabled_ || refusal != Refusal::kNone) return refusal;
  const User& user = *FindUser(who.user);
  if (user.roles.contains(std::string(kRoot))) return Refusal::kNone;
  return ReachOf(who.user, user).read.Contains(key, range_end) ? Refusal::kNone
                                                               : Refusal::kPermissionDenied;
}

Refusal AuthStore::CheckWrite(const Identity& who, std::string_view key,
                              std::string_view range_end) const {
  const Refusal refusal = CheckUser(who);
  if (!enabled_ || refusal != Refusal::kNone) return refusal;
  const User& user = *FindUser(who.user);
  if (user.roles.contains(std::string(kRoot))) return Refusal::kNone;
  return ReachOf(who.user, user).write.Contains(key, range_end) ? Refusal::kNone
                                                                : Refusal::kPermissionDenied;
}

}  // namespace conclave::auth
