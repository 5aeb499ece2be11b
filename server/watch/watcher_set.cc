#include "conclave/server/watch/watcher_set.h"

#include <algorithm>

#include "absl/strings/string_view.h"
#include "conclave/base/check.h"

namespace conclave::watch {
namespace {

absl::string_view Lookup(std::string_view key) { return {key.data(), key.size()}; }

}  // namespace

void WatcherSet::Insert(WatchGroup* group) {
  if (group->range().single()) {
    single_keys_[group->key()].push_back(group);
  } else {
    ranges_.Insert(group);
  }
}

void WatcherSet::Erase(WatchGroup* group) {
  if (!group->range().single()) return ranges_.Erase(group);
  const auto found = single_keys_.find(group->key());
  CONCLAVE_CHECK(found != single_keys_.end());
  std::vector<WatchGroup*>& groups = found->second;
  const auto at = std::find(groups.begin(), groups.end(), group);
  CONCLAVE_CHECK(at != groups.end());
  groups.erase(at);
  if (groups.empty()) single_keys_.erase(found);
}

void WatcherSet::ForEachHearing(std::string_view key,
                                absl::FunctionRef<void(WatchGroup*)> visit) const {
  if (!single_keys_.empty()) {
    const auto found = single_keys_.find(Lookup(key));
    if (found != single_keys_.end()) {
      for (WatchGroup* group : found->second) visit(group);
    }
  }
  ranges_.ForEachHolding(key, visit);
}

}  // namespace conclave::watch
