// The checkers of the recipes: pure functions from a history, and from what really happened in the
// store, to what is wrong. Empty: nothing.
#pragma once

#include <string>

#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"
#include "conclave/tests/sim/recipes/history.h"

namespace conclave::sim {

// Locks of all kinds, and elections. Each takes a number of a name's parts: a mutex and an election
// the only one; a reader one of very many and a writer all of them; a semaphore's holder his
// permits.
// - K1 tokens strictly grow with the grants of a name, as far as those exclude each other
// - K2 a grant implies a key on the claim's own lease whose turn it is at some moment between the
//      question and the answer: what it wants, and what the older keys have or want, fit together;
//      so nobody who was before it is passed over (K5 FIFO). Of a MultiLock: under all its names at
//      once
// - K3 the handles of those who hold a name at any time fit together: so that of a holder turns
//      invalid before somebody whom it excludes is told that he owns the name
// - K6 one second after a claim is over, as far as its owner was told, its key is gone; once all
//      is well, and in the end
Complaints CheckClaims(const TrueHistory& truth, const RecipeHistory& history);

// - K4 every write to "fenced/<name>" (its value is a token) stands in the store while the key of
//      that token does, and tokens never go back
Complaints CheckFencing(const TrueHistory& truth, const RecipeHistory& history);

// - K7 an observer hears exactly the leaders that there were, "nobody" included, each change once
//      and in order; where the history was compacted, the state as of then
Complaints CheckObserver(const TrueHistory& truth, const ObserverTrace& observer);

// Leases.
// - L1 none ends before the last acknowledged renewal, as of its sending, plus the TTL, unless its
//      client asked for that
// - L2 once all is well, none outlives its last renewal (or the beginning of the calm: its time
//      stands while nobody leads) by more than the TTL and the grace
// - L3 what hung on it goes in one revision
// - L4 a renewal that is acknowledged after the lease has gone was not asked for after it
// - L5 nothing ends while there is no majority
// - L6 a session believes in its lease no longer than L1 promises by what it has heard
// - L7 none is called gone while it lives
Complaints CheckLeases(const TrueHistory& truth, const RecipeHistory& history);

// - D1 a view is the registry as of its revision, never anything else (so never emptied by an
//      error), never goes back; and within a second of a change in calm times it shows it (so is
//      never frozen)
Complaints CheckView(const TrueHistory& truth, const ViewTrace& view, Instant end);

// - D2 a killed or stopped instance leaves within its TTL and the grace; one that was not disturbed
//      never leaves before it is stopped, unless the cluster served it no renewal for its TTL
// - D3 once all is well, whoever is not stopped is there, whatever became of its lease before
Complaints CheckInstances(const TrueHistory& truth, const RecipeHistory& history);

}  // namespace conclave::sim
