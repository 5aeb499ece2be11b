#include "conclave/server/backup/schema.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/writer.h"

namespace conclave::backup {
namespace {

constexpr size_t kRevisionBytes = 17;

void AppendU64(uint64_t number, std::string* out) {
  for (int shift = 56; shift >= 0; shift -= 8) out->push_back(static_cast<char>(number >> shift));
}

}  // namespace

std::string EncodeU64(uint64_t number) {
  std::string bytes;
  AppendU64(number, &bytes);
  return bytes;
}

std::optional<uint64_t> DecodeU64(std::string_view bytes) {
  if (bytes.size() != 8) return std::nullopt;
  uint64_t number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
  return number;
}

std::string EncodeRevision(mvcc::Revision revision, bool tombstone) {
  std::string bytes;
  bytes.reserve(kRevisionBytes + 1);
  AppendU64(static_cast<uint64_t>(revision.main), &bytes);
  bytes.push_back('_');
  AppendU64(static_cast<uint64_t>(revision.sub), &bytes);
  if (tombstone) bytes.push_back('t');
  return bytes;
}

std::optional<RevisionKey> DecodeRevision(std::string_view bytes) {
  const bool tombstone = bytes.size() == kRevisionBytes + 1 && bytes.back() == 't';
  if ((bytes.size() != kRevisionBytes && !tombstone) || bytes[8] != '_') return std::nullopt;
  const uint64_t main = *DecodeU64(bytes.substr(0, 8));
  const uint64_t sub = *DecodeU64(bytes.substr(9, 8));
  if (main > INT64_MAX || sub > INT32_MAX) return std::nullopt;
  return RevisionKey{{.main = static_cast<int64_t>(main), .sub = static_cast<int64_t>(sub)},
                     tombstone};
}

std::string EncodeLease(const Lease& lease) {
  wire::Builder builder;
  builder.AppendNumber(1, lease.id);
  builder.AppendNumber(2, lease.ttl_seconds);
  builder.AppendNumber(3, lease.remaining_seconds);
  return std::string(builder.view());
}

std::optional<Lease> DecodeLease(std::string_view bytes) {
  Lease lease;
  wire::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        lease.id = reader.Int64();
        break;
      case wire::VarintTag(2):
        lease.ttl_seconds = reader.Int64();
        break;
      case wire::VarintTag(3):
        lease.remaining_seconds = reader.Int64();
        break;
      default:
        reader.Skip(3);
    }
  }
  if (!reader.ok()) return std::nullopt;
  return lease;
}

// Fields of a user: 1 name, 2 password, 3 roles, 4 options (1 no password); of a role: 1 name,
// 2 permissions (1 type, 2 key, 3 range end).
std::string EncodeUser(std::string_view name, const auth::User& user) {
  wire::Builder builder;
  builder.AppendText(1, name);
  builder.AppendText(2, user.password_hash);
  for (const std::string& role : user.roles) builder.AppendElement(3, role);
  const size_t begin = builder.BeginMessage(4);
  builder.AppendNumber(1, uint64_t{user.no_password});
  builder.EndMessage(begin);
  return std::string(builder.view());
}

bool DecodeUser(std::string_view bytes, auth::User* user) {
  wire::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(2):
        user->password_hash = std::string(reader.Bytes());
        break;
      case wire::LengthTag(3):
        user->roles.emplace(reader.String());
        break;
      case wire::LengthTag(4): {
        wire::Reader options(reader.Bytes());
        while (options.Next()) {
          if (options.tag() == wire::VarintTag(1)) {
            user->no_password = options.Bool();
          } else {
            options.Skip(1);
          }
        }
        if (!options.ok()) reader.Fail();
        break;
      }
      default:
        reader.Skip();
    }
  }
  return reader.ok();
}

std::string EncodeRole(std::string_view name, const auth::Role& role) {
  wire::Builder builder;
  builder.AppendText(1, name);
  for (const auth::Permission& permission : role.permissions) {
    const size_t begin = builder.BeginMessage(2);
    builder.AppendNumber(1, static_cast<uint64_t>(permission.type));
    builder.AppendText(2, permission.key);
    builder.AppendText(3, permission.range_end);
    builder.EndMessage(begin);
  }
  return std::string(builder.view());
}

bool DecodeRole(std::string_view bytes, auth::Role* role) {
  wire::Reader reader(bytes);
  while (reader.Next()) {
    if (reader.tag() != wire::LengthTag(2)) {
      reader.Skip();
      continue;
    }
    auth::Permission permission;
    wire::Reader fields(reader.Bytes());
    while (fields.Next()) {
      switch (fields.tag()) {
        case wire::VarintTag(1): {
          const uint64_t type = fields.Varint();
          if (type > 2) fields.Fail();
          permission.type = static_cast<auth::PermissionType>(type);
          break;
        }
        case wire::LengthTag(2):
          permission.key = std::string(fields.Bytes());
          break;
        case wire::LengthTag(3):
          permission.range_end = std::string(fields.Bytes());
          break;
        default:
          fields.Skip(3);
      }
    }
    if (!fields.ok()) reader.Fail();
    role->permissions.push_back(std::move(permission));
  }
  std::sort(role->permissions.begin(), role->permissions.end(),
            [](const auth::Permission& a, const auth::Permission& b) {
              return std::tie(a.key, a.range_end) < std::tie(b.key, b.range_end);
            });
  return reader.ok();
}

bool DecodeKeyValue(std::string_view bytes, mvcc::RecordFields* fields, int64_t* mod_revision) {
  wire::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(1):
        fields->key = reader.Bytes();
        break;
      case wire::VarintTag(2):
        fields->create_revision = reader.Int64();
        break;
      case wire::VarintTag(3):
        *mod_revision = reader.Int64();
        break;
      case wire::VarintTag(4):
        fields->version = reader.Int64();
        break;
      case wire::LengthTag(5):
        fields->value = reader.Bytes();
        break;
      case wire::VarintTag(6):
        fields->lease = reader.Int64();
        break;
      default:
        reader.Skip(6);
    }
  }
  return reader.ok();
}

}  // namespace conclave::backup
