// ConfHistory: which configuration is effective at which entry.
//
// A change is effective when its entry is appended (thesis 4.1), not when it is committed, so it
// goes again when its entry is replaced: the history follows the log's tail, and holds every
// configuration from the log's base on. That also answers which configuration a snapshot at a given
// index carries.
#pragma once

#include <vector>

#include "conclave/server/raft/quorum/joint.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// Never empty. Limit: the log's; there is one item per change of membership in memory, plus one.
class ConfHistory {
 public:
  ConfHistory(Index base, ConfState conf);

  const ConfState& conf() const { return history_.back().conf; }
  const JointConfig& quorum() const { return history_.back().quorum; }
  bool IsVoter(NodeId id) const { return quorum().Contains(id); }
  // True for a voter of any configuration that is effective at `index` or after.
  bool IsVoterSince(Index index, NodeId id) const;
  // The entry that made the present configuration.
  Index entry() const { return history_.back().entry; }
  const ConfState& At(Index index) const;

  // An entry of type kConfChange was appended. It was checked by the leader that made it: CHECK.
  void Append(const Entry& entry);
  void TruncateFrom(Index index);
  void CompactTo(Index index);
  void ResetTo(Index base, ConfState conf);

 private:
  struct Item {
    Index entry;
    ConfState conf;
    JointConfig quorum;
  };

  std::vector<Item> history_;
};

}  // namespace conclave::raft
