// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace conclave {

// The length of the well-formed sequence at the front of `text`, which is not empty; 0 if there is
// none.
[[nodiscard]] size_t Utf8Sequence(std::string_view text, uint32_t* code_point);

[[nodiscard]] bool IsUtf8(std::string_view text);

}  // namespace conclave
