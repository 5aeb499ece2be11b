#include "conclave/discovery/filter.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

template <typename T>
bool Has(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// 64 bits of FNV-1a with a finisher, so that neighbouring names lie far apart. Part of the
// contract: two processes with one subset_key choose the same instances.
uint64_t Rank(std::string_view subset_key, std::string_view key) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    hash = (hash ^ 0xff) * 0x100000001b3;  // no text has this byte: an end
  };
  mix(subset_key);
  mix(key);
  hash ^= hash >> 30;
  hash *= 0xbf58476d1ce4e5b9;
  hash ^= hash >> 27;
  hash *= 0x94d049bb133111eb;
  return hash ^ (hash >> 31);
}

}  // namespace

absl::Status SnapshotFilter::Validate(const ServiceFilter& filter) {
  const auto wrong = [](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("filter: ", why...));
  };
  if (!filter.prefer_zone.empty() && !filter.zones.empty() &&
      !Has(filter.zones, filter.prefer_zone)) {
    return wrong("prefer_zone \"", filter.prefer_zone, "\" is not among zones");
  }
  for (const std::string& tag : filter.tags) {
    if (Has(filter.exclude_tags, tag)) {
      return wrong("tag \"", tag, "\" is asked for and excluded");
    }
  }
  const size_t star = filter.version.find('*');
  if (star != std::string::npos && star + 1 != filter.version.size()) {
    return wrong("a star may stand only at the end of a version");
  }
  if (filter.max_instances > 0 && !filter.states.empty() &&
      !Has(filter.states, InstanceState::kServing)) {
    return wrong("max_instances counts instances that serve, and states leaves those out");
  }
  if (filter.max_instances == 0 && !filter.subset_key.empty()) {
    return wrong("subset_key without max_instances chooses nothing");
  }
  return absl::OkStatus();
}

SnapshotFilter::SnapshotFilter(ServiceFilter filter, std::string process)
    : filter_(std::move(filter)),
      subset_key_(filter_.subset_key.empty() ? std::move(process) : filter_.subset_key),
      trivial_(filter_ == ServiceFilter{}) {}

std::string SnapshotFilter::NameOf(const ServiceFilter& filter) {
  std::string name;
  const auto add = [&name](std::string_view text) {
    absl::StrAppend(&name, text.size(), ":");
    name.append(text);
  };
  const auto add_all = [&](const std::vector<std::string>& texts) {
    absl::StrAppend(&name, texts.size(), ";");
    for (const std::string& text : texts) add(text);
  };
  add(filter.prefer_zone);
  add_all(filter.zones);
  add_all(filter.tags);
  add_all(filter.exclude_tags);
  add(filter.version);
  for (const InstanceState state : filter.states) add(InstanceStateName(state));
  absl::StrAppend(&name, "#", filter.max_instances, ";");
  add(filter.subset_key);
  return name;
}

bool SnapshotFilter::Passes(const Instance& instance) const {
  if (!filter_.zones.empty() && !Has(filter_.zones, instance.zone)) return false;
  if (!filter_.states.empty() && !Has(filter_.states, instance.state)) return false;
  if (filter_.max_instances > 0 && instance.state != InstanceState::kServing) return false;
  for (const std::string& tag : filter_.tags) {
    if (!Has(instance.tags, tag)) return false;
  }
  for (const std::string& tag : filter_.exclude_tags) {
    if (Has(instance.tags, tag)) return false;
  }
  if (filter_.version.empty()) return true;
  std::string_view wanted = filter_.version;
  if (!wanted.ends_with('*')) return instance.version == wanted;
  wanted.remove_suffix(1);
  return std::string_view(instance.version).starts_with(wanted);
}

// The highest ranks win (rendezvous hashing): an instance that goes is replaced by the next one,
// and nobody else moves.
void SnapshotFilter::KeepSubset(InstanceList::Entries* entries) const {
  if (filter_.max_instances == 0 || entries->size() <= filter_.max_instances) return;
  std::vector<std::pair<uint64_t, size_t>> ranks;
  ranks.reserve(entries->size());
  for (size_t i = 0; i < entries->size(); ++i) {
    ranks.emplace_back(Rank(subset_key_, (*entries)[i]->key), i);
  }
  const auto end = ranks.begin() + static_cast<std::ptrdiff_t>(filter_.max_instances);
  std::nth_element(ranks.begin(), end, ranks.end(), std::greater<>());
  std::sort(ranks.begin(), end, [](const auto& a, const auto& b) { return a.second < b.second; });
  InstanceList::Entries kept;
  kept.reserve(filter_.max_instances);
  for (auto rank = ranks.begin(); rank != end; ++rank) kept.push_back((*entries)[rank->second]);
  *entries = std::move(kept);
}

std::shared_ptr<const Snapshot> SnapshotFilter::Apply(
    const std::shared_ptr<const Snapshot>& all) const {
  if (trivial_) return all;
  InstanceList::Entries entries;
  bool zone_serves = false;
  for (const auto& entry : all->instances().entries()) {
    if (!Passes(entry->instance)) continue;
    entries.push_back(entry);
    zone_serves |= entry->instance.zone == filter_.prefer_zone &&
                   entry->instance.state == InstanceState::kServing;
  }
  auto snapshot = std::make_shared<Snapshot>(*all);
  if (!filter_.prefer_zone.empty()) {
    if (zone_serves) {
      std::erase_if(entries, [this](const auto& entry) {
        return entry->instance.zone != filter_.prefer_zone;
      });
    } else {
      snapshot->spilled_over_ = !entries.empty();
    }
  }
  KeepSubset(&entries);
  snapshot->instances_ = InstanceList(std::move(entries));
  return snapshot;
}

}  // namespace conclave
