// The checkers of coordination/: pure functions from what its users were told, and from what really
// happened in the store, to what is wrong. Empty: nothing.
#pragma once

#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"
#include "conclave/tests/sim/recipes/coordination_history.h"

namespace conclave::sim {

// - N1 a counter changes by what somebody adds, each once: acknowledged additions are there, with
//      the value that was answered and while they were under way; those of unknown outcome at most
//      once; refused ones never
Complaints CheckCounter(const TrueHistory& truth, const CoordinationHistory& history);

// - N2 no id is given away twice, and those of one allocator's calls grow
Complaints CheckIds(const CoordinationHistory& history);

// - Q1 what was pushed and acknowledged is there, under its id, until it is popped or acknowledged;
//      nothing else ever goes, and nothing is in the queue that nobody pushed
// - Q2 each item is got by one: popped or acknowledged once, and while the handle of one that took
//      it says that it is his nobody else gets it
// - Q3 who gets an item gets the first: none of a better place was free all the time. Who pushes
//      after another's push has returned stands behind it
Complaints CheckQueue(const TrueHistory& truth, const CoordinationHistory& history);

// - B1 nobody passes a barrier that was held all the time that he waited; nobody holds it twice
// - B2 who enters a double barrier does so in a round of as many members as it has, he among them,
//      who were all there when it opened
// - B3 who leaves is told so when nobody is inside any more, and who died inside
Complaints CheckBarriers(const TrueHistory& truth, const CoordinationHistory& history);

// - G1 who joined a group has a key on his lease; no two are the same member at a time
Complaints CheckMembers(const TrueHistory& truth, const CoordinationHistory& history);

// - T1 a job runs at most once for a tick; the ticks that are settled grow
// - T2 it runs for a tick that its own term has settled before
Complaints CheckJobs(const TrueHistory& truth, const CoordinationHistory& history);

Complaints CheckCoordination(const TrueHistory& truth, const CoordinationHistory& history);

}  // namespace conclave::sim
