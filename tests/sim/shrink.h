// Shrinking: from a run that fails to a smaller one that fails too, by leaving out one class of
// faults or clients after the other and by ending the chaos sooner, as long as it still fails.
#pragma once

#include <cstdint>
#include <functional>

#include "conclave/tests/sim/plan.h"

namespace conclave::sim {

// `fails` runs the seed with a plan, and says whether it fails. It is asked at most `runs_max`
// times.
Plan Shrink(const Plan& plan, int runs_max, const std::function<bool(const Plan&)>& fails);

}  // namespace conclave::sim
