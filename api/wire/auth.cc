#include "conclave/api/wire/auth.h"

namespace conclave::wire {
namespace {

// authpb.UserAddOptions
bool MergeOptions(std::string_view encoded, bool* no_password) {
  Reader reader(encoded);
  while (reader.Next()) {
    if (reader.tag() == VarintTag(1)) {
      *no_password = reader.Bool();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

}  // namespace

bool AuthenticateRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        name = reader.String();
        break;
      case LengthTag(2):
        password = reader.String();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool AuthUserAddRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        name = reader.String();
        break;
      case LengthTag(2):
        password = reader.String();
        break;
      case LengthTag(3):
        if (!MergeOptions(reader.Bytes(), &no_password)) reader.Fail();
        break;
      case LengthTag(4):
        hashed_password = reader.String();
        break;
      default:
        reader.Skip(4);
    }
  }
  return reader.ok();
}

bool AuthUserChangePasswordRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        name = reader.String();
        break;
      case LengthTag(2):
        password = reader.String();
        break;
      case LengthTag(3):
        hashed_password = reader.String();
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

bool AuthNameRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        name = reader.String();
        break;
      default:
        reader.Skip(1);
    }
  }
  return reader.ok();
}

bool AuthUserRoleRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        user = reader.String();
        break;
      case LengthTag(2):
        role = reader.String();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool AuthPermission::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        type = reader.Int32();
        break;
      case LengthTag(2):
        key = reader.Bytes();
        break;
      case LengthTag(3):
        range_end = reader.Bytes();
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

bool AuthRoleGrantPermissionRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        name = reader.String();
        break;
      case LengthTag(2):
        has_permission = true;
        if (!permission.Merge(reader.Bytes())) reader.Fail();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool AuthRoleRevokePermissionRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        role = reader.String();
        break;
      case LengthTag(2):
        key = reader.Bytes();
        break;
      case LengthTag(3):
        range_end = reader.Bytes();
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

Bytes EncodeAuthStatus(const ResponseHeader& header, bool enabled, uint64_t revision) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendNumber(2, uint64_t{enabled});
  builder.AppendNumber(3, revision);
  return builder.Take();
}

Bytes EncodeAuthenticate(const ResponseHeader& header, std::string_view token) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendText(2, token);
  return builder.Take();
}

Bytes EncodeAuthNames(const ResponseHeader& header, std::span<const std::string_view> names) {
  Builder builder;
  AppendHeader(&builder, header);
  for (const std::string_view name : names) builder.AppendElement(2, name);
  return builder.Take();
}

Bytes EncodeAuthRoleGet(const ResponseHeader& header, std::span<const AuthPermission> permissions) {
  Builder builder;
  AppendHeader(&builder, header);
  for (const AuthPermission& permission : permissions) {
    const size_t begin = builder.BeginMessage(2);
    builder.AppendNumber(1, int64_t{permission.type});
    builder.AppendText(2, permission.key);
    builder.AppendText(3, permission.range_end);
    builder.EndMessage(begin);
  }
  return builder.Take();
}

}  // namespace conclave::wire
