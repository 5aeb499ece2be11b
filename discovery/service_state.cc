#include "conclave/discovery/service_state.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {

std::shared_ptr<const Snapshot> ServiceState::Unknown() const {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->service_ = service_;
  return snapshot;
}

ServiceState::Change ServiceState::Apply(const WatchBatch& batch, absl::Time now) {
  Change change;
  const bool news = batch.resynced || revision_ == 0;
  bool changed = false;
  if (batch.resynced) {
    std::set<std::string> gone;
    for (const auto& [key, instance] : instances_) gone.insert(key);
    for (const auto& [key, revision] : unreadable_) gone.insert(key);
    for (const KeyValue& kv : batch.state) {
      changed |= Take(kv, &change.complaints);
      gone.erase(kv.key);
    }
    for (const std::string& key : gone) changed |= Drop(key);
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kPut) {
      changed |= Take(event.kv, &change.complaints);
    } else {
      changed |= Drop(event.kv.key);
    }
  }
  const bool stale = !batch.connected || !batch.status.ok();
  const bool turned = stale != stale_since_.has_value();
  if (turned) stale_since_ = stale ? std::optional<absl::Time>(now) : std::nullopt;
  if (batch.revision > 0) revision_ = batch.revision;
  if (changed || changed_at_ == absl::InfinitePast()) changed_at_ = now;

  if (!changed && !turned && !news) return change;
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->service_ = service_;
  for (const auto& [key, instance] : instances_) {
    snapshot->keys_.push_back(key);
    snapshot->instances_.push_back(instance);
  }
  snapshot->revision_ = revision_;
  snapshot->skipped_ = static_cast<int64_t>(unreadable_.size());
  snapshot->stale_since_ = stale_since_;
  snapshot->changed_at_ = changed_at_;
  change.snapshot = std::move(snapshot);
  return change;
}

bool ServiceState::Take(const KeyValue& kv, std::vector<std::string>* complaints) {
  absl::StatusOr<Instance> instance = DecodeNamingValue(kv.value);
  if (!instance.ok()) {
    const auto [entry, fresh] = unreadable_.emplace(kv.key, 0);
    if (entry->second != kv.mod_revision) {
      complaints->push_back(absl::StrCat("service ", service_, ": left out the entry \"", kv.key,
                                         "\" of revision ", kv.mod_revision, ": ",
                                         std::string(instance.status().message())));
      entry->second = kv.mod_revision;
    }
    return instances_.erase(kv.key) > 0 || fresh;
  }
  bool changed = unreadable_.erase(kv.key) > 0;
  instance->service = service_;
  const auto found = instances_.find(kv.key);
  if (found == instances_.end() || found->second != *instance) {
    instances_[kv.key] = *std::move(instance);
    changed = true;
  }
  return changed;
}

bool ServiceState::Drop(const std::string& key) {
  return (unreadable_.erase(key) > 0) | (instances_.erase(key) > 0);
}

Delta ServiceState::Difference(const Snapshot& before, const Snapshot& after) {
  Delta delta;
  size_t b = 0;
  size_t a = 0;
  while (b < before.keys_.size() || a < after.keys_.size()) {
    const bool old_only =
        a == after.keys_.size() || (b < before.keys_.size() && before.keys_[b] < after.keys_[a]);
    const bool new_only =
        !old_only && (b == before.keys_.size() || after.keys_[a] < before.keys_[b]);
    if (old_only) {
      delta.removed.push_back(before.instances_[b++]);
    } else if (new_only) {
      delta.added.push_back(after.instances_[a++]);
    } else {
      if (before.instances_[b] != after.instances_[a]) delta.updated.push_back(after.instances_[a]);
      ++b;
      ++a;
    }
  }
  return delta;
}

}  // namespace conclave
