// The mutants (base/mutant.h): which bug of history each one stands for, and whose guests notice
// it.
#pragma once

#include <vector>

#include "conclave/tests/sim/plan.h"

namespace conclave::sim {

struct Mutant {
  const char* name;
  Guests guests;
  const char* history;  // an issue or a change of etcd or its raft library; "-": no known one
  const char* what;
};

extern const std::vector<Mutant> kMutants;

}  // namespace conclave::sim
