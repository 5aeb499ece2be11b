// The checkers: pure functions from a history to what is wrong with it. Empty: nothing.
//
// They lean on revisions: every answer carries one, and the true history says what happened at
// each. So strict serializability is not searched for but verified, in O(n log n).
#pragma once

#include <string>
#include <vector>

#include "conclave/tests/sim/history.h"

namespace conclave::sim {

using Complaints = std::vector<std::string>;

// - an acknowledged write stands in the true history at its revision, exactly once and as it was
// asked for
// - a refused write is nowhere; one of unknown outcome is there at most once
// - real time: whatever begins after something else has returned comes behind it
// - every read shows the true state at its revision; linearizable ones are not older than what had
// returned
//   before they began
// - compares were decided by the state before the transaction
Complaints CheckKv(const TrueHistory& truth, const std::vector<KvOperation>& operations);

// - events are the true ones, in order, each once, none missing in between
// - nothing at or below a progress revision comes behind it
// - a watch that had the time has heard everything
Complaints CheckWatch(const TrueHistory& truth, const WatchHistory& watch);

// - the key of a lease does not go before the last acknowledged renewal (or the grant), as of its
// sending, plus
//   the TTL
// - it goes in the end
Complaints CheckLease(const TrueHistory& truth, const LeaseHistory& lease);

}  // namespace conclave::sim
