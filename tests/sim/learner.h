// An operator who adds a learner to a cluster of voters and has it promoted, while it is cut off
// and falls behind again and again.
#pragma once

#include <memory>

#include "conclave/tests/sim/clients.h"

namespace conclave::sim {

std::unique_ptr<Client> MakeLearnerOperator(Simulation* simulation);

}  // namespace conclave::sim
