// Who believed to hold a lock, and when: of one lock, by clients whose times compare.
#pragma once

#include <cstdint>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/tests/sim/checkers.h"

namespace conclave::nemesis {

// One belief to hold a lock.
struct Holding {
  int64_t token = 0;
  int client = 0;
  Instant from;
  Instant until;  // when the guard last said that it holds
};

// - never two at once
// - every holder's token is greater than those before it
sim::Complaints CheckHoldings(std::vector<Holding> holdings);

}  // namespace conclave::nemesis
