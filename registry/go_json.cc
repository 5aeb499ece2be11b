#include "conclave/registry/go_json.h"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/utf8.h"

namespace conclave {
namespace {

constexpr int kNestingMax = 64;

void AppendAscii(char c, std::string& out) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  if (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == '>' || c == '&') {
    absl::StrAppend(&out, "\\u", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad4));
  } else {
    out += c;
  }
}

template <typename Json>
void Append(const Json& json, std::string& out) {
  if (json.is_object()) {
    out += '{';
    const char* comma = "";
    for (const auto& [key, value] : json.items()) {
      absl::StrAppend(&out, comma, GoJsonString(key), ":");
      Append(value, out);
      comma = ",";
    }
    out += '}';
  } else if (json.is_array()) {
    out += '[';
    const char* comma = "";
    for (const Json& element : json) {
      out += comma;
      Append(element, out);
      comma = ",";
    }
    out += ']';
  } else if (json.is_string()) {
    out += GoJsonString(json.template get_ref<const std::string&>());
  } else {
    out += json.dump();  // numbers, true, false, null
  }
}

}  // namespace

std::string GoJsonString(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    uint32_t code_point = 0;
    const size_t length = Utf8Sequence(text, &code_point);
    if (length == 0) {
      out += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    if (length == 1) {
      AppendAscii(text.front(), out);
    } else if (code_point == 0x2028 || code_point == 0x2029) {
      absl::StrAppend(&out, "\\u", absl::Hex(code_point, absl::kZeroPad4));
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  out += '"';
  return out;
}

std::string EncodeGoJson(const nlohmann::json& json) {
  std::string out;
  Append(json, out);
  return out;
}

std::string EncodeGoJson(const nlohmann::ordered_json& json) {
  std::string out;
  Append(json, out);
  return out;
}

absl::StatusOr<nlohmann::ordered_json> ParseJson(std::string_view text) {
  using Json = nlohmann::ordered_json;
  bool too_deep = false;
  Json json = Json::parse(
      text.begin(), text.end(),
      [&too_deep](int depth, Json::parse_event_t, Json&) {
        if (depth > kNestingMax) too_deep = true;
        return !too_deep;
      },
      /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError("JSON nests too deep");
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  return json;
}

absl::StatusOr<nlohmann::ordered_json> ParseJsonObject(std::string_view text) {
  absl::StatusOr<nlohmann::ordered_json> json = ParseJson(text);
  if (json.ok() && !json->is_object()) return absl::InvalidArgumentError("not a JSON object");
  return json;
}

const nlohmann::ordered_json* FindMember(const nlohmann::ordered_json& object,
                                         std::string_view name) {
  const nlohmann::ordered_json* found = nullptr;
  for (const auto& [key, value] : object.items()) {
    if (absl::EqualsIgnoreCase(absl::string_view(key.data(), key.size()),
                               absl::string_view(name.data(), name.size()))) {
      found = &value;
    }
  }
  return found;
}

std::string StringMember(const nlohmann::ordered_json& object, std::string_view name) {
  const nlohmann::ordered_json* member = FindMember(object, name);
  return member != nullptr && member->is_string() ? member->get<std::string>() : std::string();
}

}  // namespace conclave
