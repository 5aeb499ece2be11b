#include "conclave/api/wire/timeout.h"

#include <chrono>

namespace conclave::wire {
namespace {

constexpr size_t kDigitsMax = 8;
constexpr Duration kTimeoutMax = std::chrono::hours(100 * 365 * 24);

// The amount may be more than a Duration can hold.
template <typename Unit>
Duration Limited(int64_t amount) {
  const Unit most = std::chrono::duration_cast<Unit>(kTimeoutMax);
  return amount > most.count() ? kTimeoutMax : Duration(Unit(amount));
}

}  // namespace

std::optional<Duration> ParseTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > kDigitsMax + 1) return std::nullopt;
  int64_t amount = 0;
  for (const char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    amount = 10 * amount + (digit - '0');
  }
  switch (text.back()) {
    case 'H':
      return Limited<std::chrono::hours>(amount);
    case 'M':
      return Limited<std::chrono::minutes>(amount);
    case 'S':
      return Limited<std::chrono::seconds>(amount);
    case 'm':
      return Limited<std::chrono::milliseconds>(amount);
    case 'u':
      return Limited<std::chrono::microseconds>(amount);
    case 'n':
      return Limited<std::chrono::nanoseconds>(amount);
    default:
      return std::nullopt;
  }
}

}  // namespace conclave::wire
