// WatcherSet: the groups with synced watchers, and which of them hear about a key: a hash map for
// single keys, an interval tree for ranges. Internal to the hub.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "conclave/server/watch/interval_tree.h"
#include "conclave/server/watch/watch_group.h"

namespace conclave::watch {

class WatcherSet {
 public:
  void Insert(WatchGroup* group);
  // The group is in the set (checked).
  void Erase(WatchGroup* group);

  // In an order that depends only on what was inserted and erased.
  void ForEachHearing(std::string_view key, absl::FunctionRef<void(WatchGroup*)> visit) const;

  bool empty() const { return single_keys_.empty() && ranges_.empty(); }
  void CheckInvariants() const { ranges_.CheckInvariants(); }

 private:
  // Looked up only, never iterated. A key has as many groups as there are filters and prev_kv: 8 at
  // most.
  absl::flat_hash_map<std::string, std::vector<WatchGroup*>> single_keys_;
  IntervalTree ranges_;
};

}  // namespace conclave::watch
