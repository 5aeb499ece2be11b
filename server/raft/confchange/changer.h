// Changer: computes the configuration that a change leads to, or says why there is none (thesis 4).
//
// Pure functions from ConfState to ConfState; the lists of both are sorted. All members compute the
// same from the same log.
//
// A node is in one of these places:
//
//     voters            votes in the new (or only) configuration
//     voters_outgoing   votes in the old one; non-empty only while joint
//     learners          listens; never also a voter
//     learners_next     is to be a learner, but still votes in voters_outgoing: becomes one on
//     leaving
//
//     (1 2 3)            AddVoter 4             (1 2 3 4)           simple
//     (1 2 3)            AddVoter 4, Remove 1   (2 3 4)&&(1 2 3)    joint, then LeaveJoint: (2 3 4)
//     (1 2 3)            AddLearner 3, AddVoter 4
//                                               (1 2 4)&&(1 2 3) learners_next (3)
//                                                                   then LeaveJoint: (1 2 4)
//                                                                   learners (3)
#pragma once

#include <span>

#include "absl/status/statusor.h"
#include "conclave/server/raft/confchange/confchange.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// The change by its kind.
[[nodiscard]] absl::StatusOr<ConfState> ApplyConfChange(const ConfState& conf,
                                                        const ConfChange& change);

// At most one voter comes or goes, so every majority before meets every majority after.
[[nodiscard]] absl::StatusOr<ConfState> SimpleChange(const ConfState& conf,
                                                     std::span<const ConfChangeStep> steps);
[[nodiscard]] absl::StatusOr<ConfState> EnterJoint(const ConfState& conf, bool auto_leave,
                                                   std::span<const ConfChangeStep> steps);
[[nodiscard]] absl::StatusOr<ConfState> LeaveJoint(const ConfState& conf);

// True if the lists are as ConfState and the table above say.
[[nodiscard]] bool IsConsistent(const ConfState& conf);

}  // namespace conclave::raft
