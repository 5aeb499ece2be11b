// Ejection: whether one backend is out for a while, and for how long. Pure: time is passed in.
//
//   healthy --Eject--> ejected --until--> healthy, with a record of n ejections
// The n-th ejection lasts n * base, up to max; after each further base without one, n falls by one.
#pragma once

#include <algorithm>

#include "absl/time/time.h"
#include "conclave/base/time.h"
#include "conclave/discovery/picking/policy.h"

namespace conclave::picking {

class Ejection {
 public:
  bool ejected() const { return ejected_; }
  Instant until() const { return ejected_ ? next_ : Instant{}; }
  int times() const { return times_; }
  // When Advance has something to do next.
  Instant NextDue() const { return ejected_ || times_ > 0 ? next_ : kNever; }

  void Eject(const Outlier& outlier, Instant now) {
    const Duration base = absl::ToChronoNanoseconds(outlier.base_ejection);
    const Duration max = absl::ToChronoNanoseconds(outlier.max_ejection);
    times_ = std::min<int>(times_ + 1, static_cast<int>(max / base) + 1);
    ejected_ = true;
    next_ = now + std::min(max, base * times_);
  }
  // True if it has come back.
  bool Advance(const Outlier& outlier, Instant now) {
    const Duration base = absl::ToChronoNanoseconds(outlier.base_ejection);
    bool back = false;
    while (NextDue() <= now) {
      back |= ejected_;
      if (!ejected_) --times_;
      ejected_ = false;
      next_ += base;
    }
    return back;
  }

 private:
  bool ejected_ = false;
  int times_ = 0;
  Instant next_{};
};

// The share of its weight that a backend gets while it starts slowly: from kSlowStartFloor, in
// proportion to the time since `begun`, to 1 after `window`.
inline constexpr double kSlowStartFloor = 0.1;
inline double SlowStartFactor(Instant begun, Instant now, Duration window) {
  if (window <= Duration::zero() || now >= begun + window) return 1;
  const double passed = std::chrono::duration<double>(now - begun).count() /
                        std::chrono::duration<double>(window).count();
  return std::max(kSlowStartFloor, passed);
}

}  // namespace conclave::picking
