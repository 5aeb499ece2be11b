// JSON text as Go's encoding/json writes it: no spaces; '<', '>', '&', U+2028 and U+2029 escaped
// for HTML; control characters as \u00xx but for \n, \r, \t; each byte that is not UTF-8 as \ufffd.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace conclave {

std::string GoJsonString(std::string_view text);  // quoted

// Objects in the order of their container: sorted for nlohmann::json, as read for ordered_json.
std::string EncodeGoJson(const nlohmann::json& json);
std::string EncodeGoJson(const nlohmann::ordered_json& json);

}  // namespace conclave
