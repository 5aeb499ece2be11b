// What a recipe's name, and an id in it, may be.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace conclave {

constexpr size_t kNameMax = 1024;
constexpr size_t kIdMax = 256;

// A name is a key, or the beginning of keys: not empty, without a slash at its end, at most
// kNameMax bytes. `what` is the recipe, for the error: "a barrier".
absl::Status CheckName(std::string_view what, std::string_view name);
// An id is one part of a key: not empty, no slash, no control characters, at most kIdMax bytes.
absl::Status CheckId(std::string_view what, std::string_view id);

}  // namespace conclave
