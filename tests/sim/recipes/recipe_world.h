// RecipeWorld: the processes that use the recipes, and what goes wrong with them: they stand still,
// lose members out of sight, and die.
#pragma once

#include <memory>

#include "conclave/tests/sim/clients.h"

namespace conclave::sim {

std::unique_ptr<Client> MakeRecipeWorld(Simulation* simulation);

}  // namespace conclave::sim
