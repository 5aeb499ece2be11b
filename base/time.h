// Time in the deterministic core: always passed in, never asked for.
//
// An Instant is a point on the process's monotonic clock, and only an actor outside the core (or
// the simulator) can make one from a real clock; MonotonicClock has no now() on purpose.
#pragma once

#include <chrono>
#include <cstdint>

namespace conclave {

using Duration = std::chrono::nanoseconds;

struct MonotonicClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};

using Instant = MonotonicClock::time_point;

inline constexpr Instant kNever = Instant::max();

}  // namespace conclave
