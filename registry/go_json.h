// JSON as Go's encoding/json treats it. Written: no spaces; '<', '>', '&', U+2028 and U+2029
// escaped for HTML; control characters as \u00xx but for \n, \r, \t; each byte that is not UTF-8 as
// \ufffd.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace conclave {

std::string GoJsonString(std::string_view text);  // quoted

// Objects in the order of their container: sorted for nlohmann::json, as read for ordered_json.
std::string EncodeGoJson(const nlohmann::json& json);
std::string EncodeGoJson(const nlohmann::ordered_json& json);

// The other way, as lenient as Go and without exceptions. InvalidArgument for what is not JSON, and
// for what nests deeper than 64, so that walking it cannot exhaust the stack.
absl::StatusOr<nlohmann::ordered_json> ParseJson(std::string_view text);
// InvalidArgument also for what is not an object.
absl::StatusOr<nlohmann::ordered_json> ParseJsonObject(std::string_view text);
// The member called `name` in any case, or null. As in Go the last one in the text wins.
const nlohmann::ordered_json* FindMember(const nlohmann::ordered_json& object,
                                         std::string_view name);
// The text of that member; empty if it is absent or no text.
std::string StringMember(const nlohmann::ordered_json& object, std::string_view name);

}  // namespace conclave
