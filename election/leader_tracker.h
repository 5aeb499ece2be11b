// LeaderTracker: from the keys under an election's prefix to the sequence of its leaders. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conclave/client/core/types.h"
#include "conclave/election/election.h"

namespace conclave {

class LeaderTracker {
 public:
  // What observers must hear after this batch of a watch (with list_first) over the prefix: each
  // change of the leader or of its proposal, in order; the very first answer always.
  std::vector<std::optional<LeaderInfo>> Apply(const WatchBatch& batch);
  // The same with the leaders' keys as they stand in the store; every write of one is a change. An
  // observer uses one of the two.
  std::vector<std::optional<KeyValue>> ApplyKeys(const WatchBatch& batch);

 private:
  void NoteChange(std::vector<std::optional<KeyValue>>& changes);

  std::map<int64_t, KeyValue> candidates_;          // by create revision: the first one leads
  std::map<std::string, int64_t> create_revision_;  // by key
  bool noted_ = false;
  int64_t last_revision_ = 0;  // in which the leader's key was written; 0: there is no leader
  bool told_ = false;
  std::optional<LeaderInfo> last_;
};

LeaderInfo LeaderInfoOf(const KeyValue& kv);

}  // namespace conclave
