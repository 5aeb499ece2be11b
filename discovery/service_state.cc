#include "conclave/discovery/service_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

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
  const bool changed = Merge(std::move(changes));
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
  changes->reserve(batch.state.size() + entries_.size());
  std::vector<std::string_view> listed;
  listed.reserve(batch.state.size());
  size_t live = 0;
  for (const KeyValue& kv : batch.state) {
    listed.push_back(kv.key);
    Take(kv, changes, change);
    if (!unreadable_.contains(kv.key)) ++live;
  }
  std::sort(listed.begin(), listed.end());  // as it comes, but who knows
  const auto is_listed = [&listed](std::string_view key) {
    return std::binary_search(listed.begin(), listed.end(), key);
  };
  std::erase_if(unreadable_, [&](const auto& entry) { return !is_listed(entry.first); });
  std::erase_if(held_, is_listed);

  // What was held before belongs no longer to what is compared with.
  const size_t known = entries_.size() - held_.size();
  const bool shrunk = !from_cache_ && static_cast<double>(live) <
                                          options_.shrink_guard * static_cast<double>(known);
  const bool confirms = suspect_since_.has_value() && now >= *NextConfirm();
  for (const auto& entry : entries_.entries()) {
    if (is_listed(entry->key)) continue;
    if (held_.contains(entry->key)) {
      if (confirms) Drop(entry->key, changes);
    } else if (shrunk) {
      REACHED("discovery: a list that has shrunk is not believed at once");
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
  const auto held = std::exchange(held_, {});
  for (const std::string& key : held) Drop(key, &changes);
  Publish(now, Merge(std::move(changes)), &change);
  return change;
}

ServiceState::Change ServiceState::Confirm(const std::vector<KeyValue>& listed, absl::Time asked_at,
                                           absl::Time now) {
  Change change;
  if (!suspect_since_.has_value() || asked_at < *NextConfirm()) return change;
  std::set<std::string, std::less<>> gone = held_;
  for (const KeyValue& kv : listed) gone.erase(kv.key);
  if (gone.empty()) return change;
  Changes changes;
  for (const std::string& key : gone) Drop(key, &changes);
  Publish(now, Merge(std::move(changes)), &change);
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
    changes->emplace_back(kv.key, nullptr);
    return;
  }
  unreadable_.erase(kv.key);
  instance->service = options_.service;
  // An equal instance stays the same object, so that snapshots share it.
  Entry entry = Find(kv.key);
  if (entry == nullptr || entry->instance != *instance) {
    entry = std::make_shared<InstanceEntry>(
        InstanceEntry{.key = kv.key, .instance = *std::move(instance)});
  }
  changes->emplace_back(kv.key, std::move(entry));
}

void ServiceState::Drop(std::string_view key, Changes* changes) {
  if (const auto known = unreadable_.find(key); known != unreadable_.end())
    unreadable_.erase(known);
  if (const auto held = held_.find(key); held != held_.end()) held_.erase(held);
  if (MUTANT("instances-never-leave")) return;
  changes->emplace_back(key, nullptr);
}

bool ServiceState::Merge(Changes changes) {
  std::stable_sort(changes.begin(), changes.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  const InstanceList::Entries& old_ones = entries_.entries();
  InstanceList::Entries merged;
  merged.reserve(old_ones.size() + changes.size());
  bool changed = false;
  auto old_one = old_ones.begin();
  for (auto it = changes.begin(); it != changes.end(); ++it) {
    auto& [key, entry] = *it;
    if (std::next(it) != changes.end() && std::next(it)->first == key) continue;  // the last counts
    while (old_one != old_ones.end() && (*old_one)->key < key) merged.push_back(*old_one++);
    const bool known = old_one != old_ones.end() && (*old_one)->key == key;
    changed |= entry != (known ? *old_one : nullptr);
    if (known) ++old_one;
    if (entry != nullptr) merged.push_back(std::move(entry));
  }
  if (!changed) return false;
  merged.insert(merged.end(), old_one, old_ones.end());
  if (merged.capacity() > merged.size() + merged.size() / 4) merged.shrink_to_fit();
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
