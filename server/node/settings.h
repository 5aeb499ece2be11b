// Settings of parts, as they follow from a member's options.
#pragma once

#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/node.h"

namespace conclave::node {

// How long a leader may be silent before its followers ask each other for an election.
[[nodiscard]] Duration SuspicionOf(const Options& options);
// For so long after a quorum has confirmed it a leader renews leases without asking again. Another
// one may have been elected meanwhile (followers whose connections break elect at once), which
// therefore gives all leases that much more time.
[[nodiscard]] Duration VerifiedFor(const Options& options);
// What a sync of the log takes on a disk that is too slow for a leader.
[[nodiscard]] Duration SlowSyncOf(const Options& options);
[[nodiscard]] apply::StateMachineOptions StateSettings(const Options& options);

}  // namespace conclave::node
