#include "conclave/tests/sim/shrink.h"

#include <chrono>

namespace conclave::sim {
namespace {

constexpr Duration kChaosMost = std::chrono::seconds(30);
constexpr Duration kChaosLeast = std::chrono::milliseconds(100);

}  // namespace

Plan Shrink(const Plan& plan, int runs_max, const std::function<bool(const Plan&)>& fails) {
  Plan best = plan;
  int runs = 0;
  const auto tries = [&](const Plan& smaller) {
    if (runs >= runs_max) return false;
    ++runs;
    if (!fails(smaller)) return false;
    best = smaller;
    return true;
  };
  // The end of the chaos first: a shorter run is cheaper to try.
  const auto shorten = [&] {
    Duration longest = std::min(best.chaos_max, kChaosMost);
    for (Duration less = longest / 2; less >= kChaosLeast; less /= 2) {
      Plan shorter = best;
      shorter.chaos_max = longest - less;
      if (tries(shorter)) longest = shorter.chaos_max;
    }
  };
  shorten();
  bool smaller = true;
  while (smaller && runs < runs_max) {
    smaller = false;
    for (size_t part = 0; part < kParts; ++part) {
      if (best.without_parts.test(part)) continue;
      Plan less = best;
      less.without_parts.set(part);
      smaller |= tries(less);
    }
    for (size_t fault = 0; fault < kFaults; ++fault) {
      if (best.without_faults.test(fault)) continue;
      Plan less = best;
      less.without_faults.set(fault);
      smaller |= tries(less);
    }
  }
  shorten();
  return best;
}

}  // namespace conclave::sim
