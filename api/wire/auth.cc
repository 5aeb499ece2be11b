#include "conclave/api/wire/auth.h"

#include <initializer_list>

#include "absl/functional/function_ref.h"

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

// A field that is a string (UTF-8) or bytes; or, without a place for it, a message.
struct Field {
  std::string_view* into = nullptr;
  bool is_text = false;
};
Field Text(std::string_view* into) { return {into, true}; }
Field Raw(std::string_view* into) { return {into, false}; }
constexpr Field kMessage;

bool NoMessage(std::string_view) { return false; }

// Of a message whose fields 1, 2, ... are these, one after the other.
bool MergeTexts(std::string_view encoded, std::initializer_list<Field> fields,
                absl::FunctionRef<bool(std::string_view)> merge_message = NoMessage) {
  Reader reader(encoded);
  while (reader.Next()) {
    uint32_t number = 1;
    const Field* field = fields.begin();
    while (field != fields.end() && reader.tag() != LengthTag(number)) {
      ++field;
      ++number;
    }
    if (field == fields.end()) {
      reader.Skip(static_cast<uint32_t>(fields.size()));
    } else if (field->into == nullptr) {
      if (!merge_message(reader.Bytes())) reader.Fail();
    } else {
      *field->into = field->is_text ? reader.String() : reader.Bytes();
    }
  }
  return reader.ok();
}

}  // namespace

bool AuthenticateRequest::Merge(std::string_view encoded) {
  return MergeTexts(encoded, {Text(&name), Text(&password)});
}

bool AuthUserAddRequest::Merge(std::string_view encoded) {
  const auto merge_options = [this](std::string_view options) {
    return MergeOptions(options, &no_password);
  };
  return MergeTexts(encoded, {Text(&name), Text(&password), kMessage, Text(&hashed_password)},
                    merge_options);
}

bool AuthUserChangePasswordRequest::Merge(std::string_view encoded) {
  return MergeTexts(encoded, {Text(&name), Text(&password), Text(&hashed_password)});
}

bool AuthNameRequest::Merge(std::string_view encoded) { return MergeTexts(encoded, {Text(&name)}); }

bool AuthUserRoleRequest::Merge(std::string_view encoded) {
  return MergeTexts(encoded, {Text(&user), Text(&role)});
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
  const auto merge_permission = [this](std::string_view given) {
    has_permission = true;
    return permission.Merge(given);
  };
  return MergeTexts(encoded, {Text(&name), kMessage}, merge_permission);
}

bool AuthRoleRevokePermissionRequest::Merge(std::string_view encoded) {
  return MergeTexts(encoded, {Text(&role), Raw(&key), Raw(&range_end)});
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
