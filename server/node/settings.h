// The state machine's settings, as they follow from a member's options.
#pragma once

#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/node.h"

namespace conclave::node {

[[nodiscard]] apply::StateMachineOptions StateSettings(const Options& options);

}  // namespace conclave::node
