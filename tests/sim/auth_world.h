// AuthWorld: an operator who changes users, roles and permissions all the time, and users who try
// what they may and what they may not. What they get is held against the oracle (auth_checker.h).
#pragma once

#include <memory>

#include "conclave/tests/sim/clients.h"

namespace conclave::sim {

std::unique_ptr<Client> MakeAuthWorld(Simulation* simulation);

}  // namespace conclave::sim
