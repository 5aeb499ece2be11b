#include "conclave/discovery/service_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {

ServiceState::ServiceState(Options options) : options_(std::move(options)) {
  auto unknown = std::make_shared<Snapshot>();
  unknown->service_ = options_.service;
  snapshot_ = std::move(unknown);
}

ServiceState::Change ServiceState::Apply(const WatchBatch& batch, absl::Time now) {
  Change change;
  Changes changes;
  const size_t held_before = held_.size();
  const size_t unreadable_before = unreadable_.size();
  const bool news = batch.resynced || revision_ == 0;
  if (batch.resynced) TakeList(batch, now, &changes, &change);
  for (const WatchEvent& event : batch.events) {
    held_.erase(event.kv.key);
    if (event.type == WatchEvent::Type::kPut) {
      Take(event.kv, &changes, &change);
    } else {
      Drop(event.kv.key, &changes);
    }
  }
  const bool changed = Merge(changes);
  const bool stale = !batch.connected || !batch.status.ok() || from_cache_;
  const bool turned = stale != stale_since_.has_value();
  if (turned) stale_since_ = stale ? std::optional<absl::Time>(now) : std::nullopt;
  if (batch.revision > 0 && !from_cache_) revision_ = batch.revision;
  if (changed || turned || news || held_.size() != held_before ||
      unreadable_.size() != unreadable_before) {
    Publish(now, changed, &change);
  }
  return change;
}

void ServiceState::TakeList(const WatchBatch& batch, absl::Time now, Changes* changes,
                            Change* change) {
  ++counters_.lists;
  std::set<std::string_view> listed;
  size_t live = 0;
  for (const KeyValue& kv : batch.state) {
    listed.insert(kv.key);
    Take(kv, changes, change);
    if (!unreadable_.contains(kv.key)) ++live;
  }
  std::erase_if(unreadable_, [&](const auto& entry) { return !listed.contains(entry.first); });
  std::erase_if(held_, [&](const std::string& key) { return listed.contains(key); });

  // What was held before belongs no longer to what is compared with.
  const size_t known = entries_.size() - held_.size();
  const bool shrunk = !from_cache_ && static_cast<double>(live) <
                                          options_.shrink_guard * static_cast<double>(known);
  const bool confirms = suspect_since_.has_value() && now >= *NextConfirm();
  for (const auto& entry : entries_.entries()) {
    if (listed.contains(entry->key)) continue;
    if (held_.contains(entry->key)) {
      if (confirms) Drop(entry->key, changes);
    } else if (shrunk) {
      if (!suspect_since_.has_value()) {
        suspect_since_ = now;
        ++counters_.holds;
      }
      held_.insert(entry->key);
    } else {
      Drop(entry->key, changes);
    }
  }
  from_cache_ = false;
}

ServiceState::Change ServiceState::Tick(absl::Time now) {
  Change change;
  const std::optional<absl::Time> due = NextTick();
  if (!due.has_value() || now < *due) return change;
  Changes changes;
  for (const std::string& key : std::set<std::string>(held_)) Drop(key, &changes);
  Publish(now, Merge(changes), &change);
  return change;
}

ServiceState::Change ServiceState::Confirm(const std::vector<KeyValue>& listed, absl::Time now) {
  Change change;
  if (!suspect_since_.has_value() || now < *NextConfirm()) return change;
  std::set<std::string> gone = held_;
  for (const KeyValue& kv : listed) gone.erase(kv.key);
  if (gone.empty()) return change;
  Changes changes;
  for (const std::string& key : gone) Drop(key, &changes);
  Publish(now, Merge(changes), &change);
  return change;
}

ServiceState::Change ServiceState::Restore(int64_t revision, const InstanceList& instances,
                                           absl::Time saved_at) {
  Change change;
  if (revision_ != 0 || revision <= 0) return change;
  entries_ = instances;
  revision_ = revision;
  from_cache_ = true;
  stale_since_ = saved_at;
  Publish(saved_at, /*changed=*/true, &change);
  return change;
}

std::optional<absl::Time> ServiceState::NextTick() const {
  if (!suspect_since_.has_value() || stale_since_.has_value()) return std::nullopt;
  return *suspect_since_ + options_.shrink_hold;
}

std::optional<absl::Time> ServiceState::NextConfirm() const {
  if (!suspect_since_.has_value()) return std::nullopt;
  return *suspect_since_ + options_.shrink_hold / 2;
}

ServiceState::Entry ServiceState::Find(std::string_view key) const {
  const InstanceList::Entries& entries = entries_.entries();
  const auto found =
      std::lower_bound(entries.begin(), entries.end(), key,
                       [](const Entry& entry, std::string_view k) { return entry->key < k; });
  return found != entries.end() && (*found)->key == key ? *found : nullptr;
}

void ServiceState::Take(const KeyValue& kv, Changes* changes, Change* change) {
  absl::StatusOr<Instance> instance =
      kv.value.size() > kValueBytesMax
          ? absl::InvalidArgumentError(absl::StrCat("larger than ", kValueBytesMax, " bytes"))
      : options_.decode ? options_.decode(kv.key, kv.value)
                        : DecodeNamingValue(kv.value);
  if (absl::IsNotFound(instance.status())) return Drop(kv.key, changes);  // another service's
  if (!instance.ok()) {
    int64_t& logged = unreadable_[kv.key];
    if (logged != kv.mod_revision) {
      change->complaints.push_back(absl::StrCat(
          "service ", options_.service, ": left out the entry \"", kv.key, "\" of revision ",
          kv.mod_revision, ": ", std::string(instance.status().message())));
      logged = kv.mod_revision;
      ++counters_.unreadable;
    }
    (*changes)[kv.key] = nullptr;
    return;
  }
  unreadable_.erase(kv.key);
  instance->service = options_.service;
  // An equal instance stays the same object, so that snapshots share it.
  const auto pending = changes->find(kv.key);
  const Entry known = pending != changes->end() ? pending->second : Find(kv.key);
  if (known != nullptr && known->instance == *instance) return;
  (*changes)[kv.key] = std::make_shared<InstanceEntry>(
      InstanceEntry{.key = kv.key, .instance = *std::move(instance)});
}

void ServiceState::Drop(const std::string& key, Changes* changes) {
  unreadable_.erase(key);
  held_.erase(key);
  (*changes)[key] = nullptr;
}

bool ServiceState::Merge(const Changes& changes) {
  const InstanceList::Entries& old_ones = entries_.entries();
  InstanceList::Entries merged;
  merged.reserve(old_ones.size() + changes.size());
  bool changed = false;
  auto old_one = old_ones.begin();
  for (const auto& [key, entry] : changes) {
    while (old_one != old_ones.end() && (*old_one)->key < key) merged.push_back(*old_one++);
    const bool known = old_one != old_ones.end() && (*old_one)->key == key;
    changed |= known || entry != nullptr;
    if (known) ++old_one;
    if (entry != nullptr) merged.push_back(entry);
  }
  if (!changed) return false;
  merged.insert(merged.end(), old_one, old_ones.end());
  entries_ = InstanceList(std::move(merged));
  return true;
}

void ServiceState::Publish(absl::Time now, bool changed, Change* change) {
  if (held_.empty()) suspect_since_ = std::nullopt;
  if (changed || changed_at_ == absl::InfinitePast()) changed_at_ = now;
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->service_ = options_.service;
  snapshot->instances_ = entries_;
  snapshot->revision_ = revision_;
  snapshot->skipped_ = static_cast<int64_t>(unreadable_.size());
  snapshot->held_ = static_cast<int64_t>(held_.size());
  snapshot->stale_since_ = stale_since_;
  snapshot->suspect_since_ = suspect_since_;
  snapshot->from_cache_ = from_cache_;
  snapshot->changed_at_ = changed_at_;
  snapshot_ = std::move(snapshot);
  change->snapshot = snapshot_;
}

}  // namespace conclave
