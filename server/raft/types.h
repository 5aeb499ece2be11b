// The vocabulary of Raft: what stands in the log, on disk and in messages. Plain structs.
#pragma once

#include <cstdint>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/base/strong.h"

namespace conclave::raft {

using Term = Strong<struct TermTag>;      // 0: before the first election
using Index = Strong<struct IndexTag>;    // of a log entry; the first is 1, 0 is "none"
using NodeId = Strong<struct NodeIdTag>;  // a member; 0 is "nobody"
using ReadId = Strong<struct ReadIdTag>;  // of a read round; grows within one process

enum class EntryType : uint8_t {
  kCommand = 0,     // payload is the state machine's; empty payload: the first entry of a leader
  kConfChange = 1,  // payload is an encoded confchange, effective at append
};

struct Entry {
  Term term;
  Index index;
  EntryType type = EntryType::kCommand;
  Bytes payload;

  friend bool operator==(const Entry&, const Entry&) = default;
};

// What must survive a crash beside the entries.
struct HardState {
  Term term;
  NodeId vote;
  Index commit;

  friend bool operator==(const HardState&, const HardState&) = default;
};

// Who votes and who listens. voters_outgoing is non-empty only in a joint configuration.
// All lists are sorted.
struct ConfState {
  std::vector<NodeId> voters;
  std::vector<NodeId> voters_outgoing;
  std::vector<NodeId> learners;
  std::vector<NodeId> learners_next;
  bool auto_leave = false;

  friend bool operator==(const ConfState&, const ConfState&) = default;
};

// Where in the log a snapshot of the state machine stands.
struct SnapshotMeta {
  Index index;
  Term term;
  ConfState conf;

  friend bool operator==(const SnapshotMeta&, const SnapshotMeta&) = default;
};

}  // namespace conclave::raft
