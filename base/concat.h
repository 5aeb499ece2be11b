// Concat: absl::StrCat that takes std::string_view too, which Debian's build of Abseil does not
// know as its own.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace conclave {

namespace concat_internal {
template <typename T>
decltype(auto) Piece(const T& part) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return absl::string_view(part.data(), part.size());
  } else {
    return (part);
  }
}
}  // namespace concat_internal

template <typename... Args>
[[nodiscard]] std::string Concat(const Args&... parts) {
  return absl::StrCat(concat_internal::Piece(parts)...);
}

}  // namespace conclave
