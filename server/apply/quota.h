// What a request may add to the state, in bytes, and whether there is room for it.
//
// Decided before proposing, on live bytes: what is committed is applied, and deletes and compaction
// always go through. So the state may exceed the quota by what is on its way when it is reached.
#pragma once

#include <cstdint>
#include <string_view>

#include "conclave/api/wire/method.h"

namespace conclave::apply {

// 0 for requests that add nothing (reads, deletes, transactions without a put). Of a transaction's
// branches the dearer one counts. `request` must have passed CheckRequest.
[[nodiscard]] int64_t QuotaCost(wire::Method method, std::string_view request);

[[nodiscard]] bool FitsQuota(wire::Method method, std::string_view request, int64_t live_bytes,
                             int64_t quota_bytes);

}  // namespace conclave::apply
