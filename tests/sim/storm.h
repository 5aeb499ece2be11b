// Storm: operators who add, remove, promote and move members all the time, while everything else
// goes wrong too. What they are told is compared with what the members know in the end.
#pragma once

#include <memory>

#include "conclave/tests/sim/clients.h"

namespace conclave::sim {

std::unique_ptr<Client> MakeStorm(Simulation* simulation);

}  // namespace conclave::sim
