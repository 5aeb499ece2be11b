// Revision: the store's clock. One write request or transaction is one `main`; its writes count up
// `sub`.
#pragma once

#include <compare>
#include <cstdint>

namespace conclave::mvcc {

struct Revision {
  int64_t main = 0;
  int64_t sub = 0;

  friend constexpr auto operator<=>(const Revision&, const Revision&) = default;
};

// Sees everything, also the writes of the open transaction.
inline constexpr int64_t kLatest = INT64_MAX;

}  // namespace conclave::mvcc
