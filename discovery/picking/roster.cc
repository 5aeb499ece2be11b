#include "conclave/discovery/picking/roster.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "conclave/discovery/picking/weighted_sequence.h"
#include "conclave/discovery/subset.h"
#include "conclave/discovery/xds/endpoint_set.h"

namespace conclave::picking {
namespace {

// A ramp is a stair of so many steps, so that a weight that changes all the time does not make a
// new table all the time.
constexpr int kRampSteps = 20;

bool Usable(const std::string& address) {
  const absl::StatusOr<xds::HostPort> parts = xds::ParseHostPort(address);
  if (!parts.ok()) return false;
  return !xds::LooksLikeIp(parts->host) || xds::CanonicalIp(parts->host).ok();
}

}  // namespace

std::set<std::string> Roster::Select(const std::map<std::string, const Instance*>& serving) const {
  std::vector<std::string_view> tiers[2];  // in the zone, and elsewhere
  for (const auto& [address, instance] : serving) {
    const bool near = !options_.prefer_zone.empty() && instance->zone == options_.prefer_zone;
    tiers[near ? 0 : 1].push_back(address);
  }
  const size_t count = options_.subset == 0 ? kMembersMax : options_.subset;
  std::set<std::string> selected;
  for (const std::vector<std::string_view>& tier : tiers) {
    const size_t room = std::min(count, kMembersMax - selected.size());
    for (const size_t i : RendezvousSubset(options_.subset_key, tier, room)) {
      selected.emplace(tier[i]);
    }
  }
  return selected;
}

Roster::Change Roster::SetInstances(std::span<const Instance* const> instances) {
  Change change;
  std::map<std::string, const Instance*> serving;
  unusable_ = 0;
  for (const Instance* instance : instances) {
    if (instance->state != InstanceState::kServing) continue;
    if (Usable(instance->address)) {
      serving.emplace(instance->address, instance);
    } else {
      ++unusable_;
    }
  }
  const std::set<std::string> selected = Select(serving);
  for (auto it = members_.begin(); it != members_.end();) {
    if (selected.contains(it->first)) {
      ++it;
      continue;
    }
    change.left.push_back(it->second.id);
    addresses_.erase(it->second.id);
    it = members_.erase(it);
  }
  bool weights_changed = false;
  for (const std::string& address : selected) {
    const Instance& instance = *serving.at(address);
    const auto [it, joined] = members_.try_emplace(address);
    Member& member = it->second;
    if (joined) {
      member.id = next_id_++;
      member.load = std::make_shared<BackendLoad>();
      member.ramp_when_ready = had_instances_;  // the first set begins at full weight
      addresses_.emplace(member.id, address);
      change.joined.push_back(member.id);
    } else if (member.instance == instance) {
      continue;
    }
    weights_changed |= member.instance.weight != instance.weight;
    member.instance = instance;
    member.view.reset();
  }
  had_instances_ |= !selected.empty();
  if (options_.ring &&
      (weights_changed || ring_ == nullptr || !change.joined.empty() || !change.left.empty())) {
    RebuildRing();
  }
  return change;
}

void Roster::RebuildRing() {
  std::vector<HashRing::Member> members;
  members.reserve(members_.size());
  for (const auto& [address, member] : members_) {
    members.push_back({.name = address,
                       .weight = std::min(static_cast<double>(member.instance.weight.value_or(
                                              static_cast<int64_t>(kUnsetWeight))),
                                          WeightedSequence::kWeightMax)});
  }
  ring_ = std::make_shared<const HashRing>(members);
}

bool Roster::SetState(uint64_t id, BackendState state, Instant now) {
  Member* member = FindMutable(id);
  if (member == nullptr) return false;
  if (member->state == BackendState::kFailing && state == BackendState::kConnecting) return false;
  if (member->state == state) return false;
  member->state = state;
  if (state == BackendState::kFailing) member->ramp_when_ready = true;
  if (state == BackendState::kReady) {
    member->load->consecutive_failures.store(0, std::memory_order_relaxed);
    if (member->ramp_when_ready && options_.slow_start > Duration::zero()) {
      member->ramp_begun = now;
      next_ramp_ = std::min(next_ramp_, now + options_.slow_start / kRampSteps);
    }
    member->ramp_when_ready = false;
  }
  return true;
}

bool Roster::Eject(uint64_t id, Instant now) {
  Member* member = FindMutable(id);
  if (member == nullptr || !options_.outlier.has_value() || member->ejection.ejected()) {
    return false;
  }
  member->load->consecutive_failures.store(0, std::memory_order_relaxed);
  if (member->state != BackendState::kReady) return false;
  int ready = 0;
  int ejected = 0;
  for (const auto& [address, other] : members_) {
    if (other.state != BackendState::kReady) continue;
    ++ready;
    ejected += other.ejection.ejected() ? 1 : 0;
  }
  const int allowed = options_.outlier->max_ejection_percent == 0
                          ? 0
                          : std::max(1, ready * options_.outlier->max_ejection_percent / 100);
  if (ejected >= allowed || ready <= 1) return false;
  member->ejection.Eject(*options_.outlier, now);
  return true;
}

bool Roster::Advance(Instant now) {
  bool changed = false;
  if (options_.outlier.has_value()) {
    for (auto& [address, member] : members_) {
      if (!member.ejection.Advance(*options_.outlier, now)) continue;
      changed = true;
      if (options_.slow_start > Duration::zero()) {
        member.ramp_begun = now;
        next_ramp_ = std::min(next_ramp_, now + options_.slow_start / kRampSteps);
      }
    }
  }
  if (now >= next_ramp_) {
    changed = true;
    next_ramp_ = kNever;
    for (auto& [address, member] : members_) {
      if (!member.ramp_begun.has_value()) continue;
      if (Ramping(member, now)) {
        next_ramp_ = now + options_.slow_start / kRampSteps;
      } else {
        member.ramp_begun.reset();
      }
    }
  }
  return changed;
}

Instant Roster::NextDue() const {
  Instant due = next_ramp_;
  for (const auto& [address, member] : members_) due = std::min(due, member.ejection.NextDue());
  return due;
}

double Roster::WeightNow(const Member& member, Instant now) const {
  double weight = 1;
  if (options_.by_weight) {
    weight = member.instance.weight.has_value() ? static_cast<double>(*member.instance.weight)
                                                : kUnsetWeight;
    weight = std::clamp(weight, 0.0, WeightedSequence::kWeightMax);
  }
  if (!member.ramp_begun.has_value()) return weight;
  const double factor = SlowStartFactor(*member.ramp_begun, now, options_.slow_start);
  return weight * std::max(kSlowStartFloor, std::floor(factor * kRampSteps) / kRampSteps);
}

Roster::Candidates Roster::Choose(Instant now) {
  std::vector<std::pair<Member*, uint32_t>> ready;  // with the place among all
  size_t healthy = 0;
  uint32_t place = 0;
  for (auto& [address, member] : members_) {
    if (member.state == BackendState::kReady) {
      ready.emplace_back(&member, place);
      healthy += member.ejection.ejected() ? 0 : 1;
    }
    ++place;
  }
  Candidates chosen;
  chosen.panic = healthy < ready.size() &&
                 healthy * 100 < ready.size() * static_cast<size_t>(options_.panic_percent);
  if (!chosen.panic && healthy > 0) {
    std::erase_if(ready, [](const auto& entry) { return entry.first->ejection.ejected(); });
  }
  if (!options_.prefer_zone.empty()) {
    const auto near = [this](const Member& member) {
      return member.instance.zone == options_.prefer_zone;
    };
    const auto all = std::count_if(members_.begin(), members_.end(),
                                   [&near](const auto& entry) { return near(entry.second); });
    const auto usable = std::count_if(ready.begin(), ready.end(),
                                      [&near](const auto& entry) { return near(*entry.first); });
    if (usable > 0 && usable * 100 >= all * options_.zone_ready_percent) {
      std::erase_if(ready, [&near](const auto& entry) { return !near(*entry.first); });
    }
  }
  for (const auto& [member, index] : ready) {
    const double weight = WeightNow(*member, now);
    if (member->view == nullptr || member->view->weight() != weight) {
      member->view = std::make_shared<Backend>(member->instance, weight, member->load);
    }
    chosen.backends.push_back(member->view);
    chosen.ids.push_back(member->id);
    if (options_.ring) chosen.ring_index.push_back(index);
  }
  return chosen;
}

const Roster::Member* Roster::Find(uint64_t id) const {
  const auto found = addresses_.find(id);
  return found == addresses_.end() ? nullptr : &members_.at(found->second);
}

Roster::Member* Roster::FindMutable(uint64_t id) { return const_cast<Member*>(Find(id)); }

}  // namespace conclave::picking
