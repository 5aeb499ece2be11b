// A change of membership, as it stands in the payload of a kConfChange entry.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

enum class ConfChangeType : uint8_t {
  kAddVoter = 0,    // also promotes a learner
  kAddLearner = 1,  // also demotes a voter
  kRemove = 2,
};

struct ConfChangeStep {
  ConfChangeType type = ConfChangeType::kAddVoter;
  NodeId node;
  friend bool operator==(const ConfChangeStep&, const ConfChangeStep&) = default;
};

enum class ConfChangeKind : uint8_t {
  kAuto = 0,            // simple if it changes one voter at most, else joint with auto-leave
  kJointAutoLeave = 1,  // joint; the leader proposes kLeaveJoint when it is committed
  kJointExplicit = 2,   // joint until somebody proposes kLeaveJoint
  kLeaveJoint = 3,      // ends a joint configuration; has no steps
};

struct ConfChange {
  ConfChangeKind kind = ConfChangeKind::kAuto;
  std::vector<ConfChangeStep> steps;
  Bytes context;  // the state machine's own: names and addresses, say
  friend bool operator==(const ConfChange&, const ConfChange&) = default;
};

// kind (1 byte) | number of steps (1) | per step: type (1), node (8, little endian) | context (the
// rest)
inline constexpr size_t kMaxConfChangeSteps = 64;
Bytes EncodeConfChange(const ConfChange& change);
// nullopt if it is not an encoded change. The context shares the payload's memory.
[[nodiscard]] std::optional<ConfChange> DecodeConfChange(const Bytes& payload);

}  // namespace conclave::raft
