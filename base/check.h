// CHECK for what cannot happen. It is on in every build: a server that has lost its invariants must
// stop before it acknowledges anything more.
#pragma once

#include <string>

#include "conclave/base/concat.h"

namespace conclave {

// Prints one line to stderr, and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& detail);

namespace check_internal {
template <typename... Args>
std::string Detail(const Args&... args) {
  if constexpr (sizeof...(args) == 0) {
    return {};
  } else {
    return Concat(args...);
  }
}
}  // namespace check_internal

}  // namespace conclave

// CONCLAVE_CHECK(condition, "detail ", value, ...): the detail is built only when it fails.
#define CONCLAVE_CHECK(condition, ...)                                          \
  do {                                                                          \
    if (!(condition)) [[unlikely]] {                                            \
      ::conclave::CheckFailed(__FILE__, __LINE__, #condition,                   \
                              ::conclave::check_internal::Detail(__VA_ARGS__)); \
    }                                                                           \
  } while (false)
