// The header grpc-timeout: how long a call's client waits, from the call's beginning.
#pragma once

#include <optional>
#include <string_view>

#include "conclave/base/time.h"

namespace conclave::wire {

// "500m" is half a second: at most eight digits and a unit, H, M, S, m, u or n. Nothing for what is
// no such text. What is longer than a hundred years is a hundred years.
std::optional<Duration> ParseTimeout(std::string_view text);

}  // namespace conclave::wire
