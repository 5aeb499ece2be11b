#include "conclave/election/leader_tracker.h"

#include <utility>

#include "conclave/base/mutant.h"

namespace conclave {

LeaderInfo LeaderInfoOf(const KeyValue& kv) {
  return {.proposal = kv.value, .key = kv.key, .lease = kv.lease, .term = kv.create_revision};
}

void LeaderTracker::NoteChange(std::vector<std::optional<KeyValue>>& changes) {
  const KeyValue* const leader = candidates_.empty() ? nullptr : &candidates_.begin()->second;
  const int64_t revision = leader == nullptr ? 0 : leader->mod_revision;
  if (noted_ && revision == last_revision_) return;
  if (MUTANT("observer-never-hears-of-nobody") && leader == nullptr) return;
  noted_ = true;
  last_revision_ = revision;
  changes.push_back(leader == nullptr ? std::nullopt : std::optional<KeyValue>(*leader));
}

std::vector<std::optional<LeaderInfo>> LeaderTracker::Apply(const WatchBatch& batch) {
  std::vector<std::optional<LeaderInfo>> changes;
  for (const std::optional<KeyValue>& leader : ApplyKeys(batch)) {
    std::optional<LeaderInfo> current;
    if (leader.has_value()) current = LeaderInfoOf(*leader);
    if (told_ && current == last_) continue;
    told_ = true;
    last_ = current;
    changes.push_back(std::move(current));
  }
  return changes;
}

std::vector<std::optional<KeyValue>> LeaderTracker::ApplyKeys(const WatchBatch& batch) {
  std::vector<std::optional<KeyValue>> changes;
  if (batch.resynced) {
    candidates_.clear();
    create_revision_.clear();
    for (const KeyValue& kv : batch.state) {
      candidates_[kv.create_revision] = kv;
      create_revision_[kv.key] = kv.create_revision;
    }
    NoteChange(changes);
  }
  for (size_t i = 0; i < batch.events.size(); ++i) {
    const WatchEvent& event = batch.events[i];
    auto known = create_revision_.find(event.kv.key);
    if (known != create_revision_.end()) {
      candidates_.erase(known->second);
      create_revision_.erase(known);
    }
    if (event.type == WatchEvent::Type::kPut) {
      candidates_[event.kv.create_revision] = event.kv;
      create_revision_[event.kv.key] = event.kv.create_revision;
    }
    // What happened in one revision happened at once.
    const bool whole = i + 1 == batch.events.size() ||
                       batch.events[i + 1].kv.mod_revision != event.kv.mod_revision;
    if (whole) NoteChange(changes);
  }
  return changes;
}

}  // namespace conclave
