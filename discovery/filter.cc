#include "conclave/discovery/filter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/discovery/subset.h"

namespace conclave {
namespace {

constexpr size_t kSubsetKeyBytesMax = 1'024;

template <typename T>
bool Has(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

template <typename... Parts>
absl::Status Wrong(const Parts&... why) {
  return absl::InvalidArgumentError(absl::StrCat("filter: ", why...));
}

}  // namespace

absl::Status SnapshotFilter::Validate(const ServiceFilter& filter) {
  if (!filter.prefer_zone.empty() && !filter.zones.empty() &&
      !Has(filter.zones, filter.prefer_zone)) {
    return Wrong("prefer_zone \"", filter.prefer_zone, "\" is not among zones");
  }
  for (const std::string& tag : filter.tags) {
    if (Has(filter.exclude_tags, tag)) {
      return Wrong("tag \"", tag, "\" is asked for and excluded");
    }
  }
  const size_t star = filter.version.find('*');
  if (star != std::string::npos && star + 1 != filter.version.size()) {
    return Wrong("a star may stand only at the end of a version");
  }
  if (filter.max_instances > 0 && !filter.states.empty() &&
      !Has(filter.states, InstanceState::kServing)) {
    return Wrong("max_instances counts instances that serve, and states leaves those out");
  }
  if (filter.max_instances == 0 && !filter.subset_key.empty()) {
    return Wrong("subset_key without max_instances chooses nothing");
  }
  if (filter.subset_key.size() > kSubsetKeyBytesMax) {
    return Wrong("subset_key is longer than ", kSubsetKeyBytesMax, " bytes");
  }
  return absl::OkStatus();
}

absl::Status SnapshotFilter::ValidateForCalls(const ServiceFilter& filter,
                                              std::string_view prefer_zone) {
  if (!filter.states.empty()) {
    return Wrong("states must be empty: instances that serve get calls, and no others");
  }
  if (!prefer_zone.empty() && !filter.prefer_zone.empty()) {
    return Wrong("prefer_zone of the filter and of the channel are two ways of one thing: set one");
  }
  ServiceFilter zoned = filter;
  if (!prefer_zone.empty()) zoned.prefer_zone = prefer_zone;
  return Validate(zoned);
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

void SnapshotFilter::KeepSubset(InstanceList::Entries* entries) const {
  if (filter_.max_instances == 0 || entries->size() <= filter_.max_instances) return;
  std::vector<std::string_view> addresses;
  addresses.reserve(entries->size());
  for (const auto& entry : *entries) addresses.push_back(entry->instance.address);
  InstanceList::Entries kept;
  kept.reserve(filter_.max_instances);
  for (const size_t i : RendezvousSubset(subset_key_, addresses, filter_.max_instances)) {
    kept.push_back((*entries)[i]);
  }
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
