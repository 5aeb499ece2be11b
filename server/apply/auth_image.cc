#include "conclave/server/apply/auth_image.h"

#include <utility>

#include "conclave/api/wire/auth.h"
#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/writer.h"

namespace conclave::apply {
namespace {

// Fields: 1 name; 2 password hash; 3 no password; 4 role, repeated.
bool DecodeUser(std::string_view encoded, std::string* name, auth::User* user) {
  wire::Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(1):
        *name = reader.Bytes();
        break;
      case wire::LengthTag(2):
        user->password_hash = reader.Bytes();
        break;
      case wire::VarintTag(3):
        user->no_password = reader.Bool();
        break;
      case wire::LengthTag(4):
        user->roles.emplace(reader.Bytes());
        break;
      default:
        reader.Skip(4);
    }
  }
  return reader.ok() && !name->empty();
}

// Fields: 1 name; 2 authpb.Permission, repeated.
bool DecodeRole(std::string_view encoded, std::string* name, auth::Role* role) {
  wire::Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(1):
        *name = reader.Bytes();
        break;
      case wire::LengthTag(2): {
        wire::AuthPermission permission;
        if (!wire::Parse(reader.Bytes(), &permission) || permission.type < 0 ||
            permission.type > 2) {
          reader.Fail();
        }
        role->permissions.push_back({static_cast<auth::PermissionType>(permission.type),
                                     std::string(permission.key),
                                     std::string(permission.range_end)});
        break;
      }
      default:
        reader.Skip(2);
    }
  }
  return reader.ok() && !name->empty();
}

}  // namespace

// Fields: 1 enabled; 2 revision; 3 user, repeated; 4 role, repeated; both by name.
std::string EncodeAuthStore(const auth::AuthStore& store) {
  wire::Builder builder;
  builder.AppendNumber(1, uint64_t{store.enabled()});
  builder.AppendNumber(2, store.revision());
  for (const auto& [name, user] : store.users()) {
    const size_t begin = builder.BeginMessage(3);
    builder.AppendText(1, name);
    builder.AppendText(2, user.password_hash);
    builder.AppendNumber(3, uint64_t{user.no_password});
    for (const std::string& role : user.roles) builder.AppendElement(4, role);
    builder.EndMessage(begin);
  }
  for (const auto& [name, role] : store.roles()) {
    const size_t begin = builder.BeginMessage(4);
    builder.AppendText(1, name);
    for (const auth::Permission& permission : role.permissions) {
      const size_t inner = builder.BeginMessage(2);
      builder.AppendNumber(1, static_cast<uint64_t>(permission.type));
      builder.AppendText(2, permission.key);
      builder.AppendText(3, permission.range_end);
      builder.EndMessage(inner);
    }
    builder.EndMessage(begin);
  }
  return std::string(builder.view());
}

bool DecodeAuthStore(std::string_view encoded, auth::AuthStore* store) {
  bool enabled = false;
  uint64_t revision = 0;
  absl::btree_map<std::string, auth::User> users;
  absl::btree_map<std::string, auth::Role> roles;
  wire::Reader reader(encoded);
  while (reader.Next()) {
    std::string name;
    switch (reader.tag()) {
      case wire::VarintTag(1):
        enabled = reader.Bool();
        break;
      case wire::VarintTag(2):
        revision = reader.Varint();
        break;
      case wire::LengthTag(3): {
        auth::User user;
        if (!DecodeUser(reader.Bytes(), &name, &user)) reader.Fail();
        users[std::move(name)] = std::move(user);
        break;
      }
      case wire::LengthTag(4): {
        auth::Role role;
        if (!DecodeRole(reader.Bytes(), &name, &role)) reader.Fail();
        roles[std::move(name)] = std::move(role);
        break;
      }
      default:
        reader.Skip(4);
    }
  }
  if (!reader.ok() || revision == 0) return false;
  const auto root = users.find(std::string(auth::kRoot));
  if (enabled && (root == users.end() || !root->second.roles.contains(std::string(auth::kRoot)))) {
    return false;  // nobody could ever disable it
  }
  store->Restore(enabled, revision, std::move(users), std::move(roles));
  return true;
}

const wire::Error* ErrorOf(auth::Refusal refusal) {
  using auth::Refusal;
  switch (refusal) {
    case Refusal::kNone:
      return nullptr;
    case Refusal::kRootUserMissing:
      return &wire::kErrRootUserMissing;
    case Refusal::kRootRoleMissing:
      return &wire::kErrRootRoleMissing;
    case Refusal::kUserExists:
      return &wire::kErrUserExists;
    case Refusal::kUserEmpty:
      return &wire::kErrUserEmpty;
    case Refusal::kUserNotFound:
      return &wire::kErrUserNotFound;
    case Refusal::kRoleExists:
      return &wire::kErrRoleExists;
    case Refusal::kRoleEmpty:
      return &wire::kErrRoleEmpty;
    case Refusal::kRoleNotFound:
      return &wire::kErrRoleNotFound;
    case Refusal::kRoleNotGranted:
      return &wire::kErrRoleNotGranted;
    case Refusal::kPermissionNotGiven:
      return &wire::kErrPermissionNotGiven;
    case Refusal::kPermissionNotGranted:
      return &wire::kErrPermissionNotGranted;
    case Refusal::kPermissionDenied:
      return &wire::kErrPermissionDenied;
    case Refusal::kAuthFailed:
      return &wire::kErrAuthFailed;
    case Refusal::kNoPasswordUser:
      return &wire::kErrNoPasswordUser;
    case Refusal::kAuthNotEnabled:
      return &wire::kErrAuthNotEnabled;
    case Refusal::kInvalidManagement:
      return &wire::kErrInvalidAuthManagement;
    case Refusal::kOldRevision:
      return &wire::kErrAuthOldRevision;
  }
  return &wire::kErrPermissionDenied;
}

}  // namespace conclave::apply
