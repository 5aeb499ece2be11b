// Text for what Raft deals in, for scripts and failures.
#pragma once

#include <string>

#include "conclave/server/raft/raw_node.h"

namespace conclave::raft::test {

std::string Describe(const ConfState& conf);
std::string Describe(const Entry& entry);
std::string Describe(const Message& message);
std::string Describe(const Envelope& envelope);
std::string Describe(const Ready& ready);
std::string Name(Role role);
std::string Name(PeerState state);
std::string Name(ProposeStatus status);

// v1: add voter 1, l1: add learner 1, r1: remove 1.
ConfChangeStep ParseStep(const std::string& word);

}  // namespace conclave::raft::test
