#include "conclave/client/core/endpoint_pool.h"

#include <algorithm>
#include <iterator>

#include "conclave/base/mutant.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kShunBase = milliseconds(200);
constexpr Duration kShunCap = seconds(10);
constexpr int kDoublingsMax = 20;

}  // namespace

EndpointPool::EndpointPool(const std::vector<std::string>& names, Prng& prng) : prng_(prng) {
  for (const std::string& name : names) members_[next_id_++].endpoint.name = name;
  if (!names.empty()) turn_ = prng_.Below(names.size());
}

std::optional<size_t> EndpointPool::Pick(Instant now) {
  for (const bool fallback : {false, true}) {
    const std::optional<size_t> healthy = PickNext([now, fallback](const Member& member) {
      return member.shunned_until <= now && member.endpoint.fallback == fallback;
    });
    if (healthy.has_value()) return healthy;
  }
  // Not the one that is shunned for the shortest time: that is the one that was fine for long and
  // failed just now, and nothing is known of the others since they failed.
  return PickNext([](const Member&) { return true; });
}

std::optional<size_t> EndpointPool::PickNext(absl::FunctionRef<bool(const Member&)> may) {
  Members::iterator member = members_.lower_bound(turn_);
  for (size_t i = 0; i < members_.size(); ++i, ++member) {
    if (member == members_.end()) member = members_.begin();
    if (!may(member->second)) continue;
    turn_ = member->first + (MUTANT("client-stays-with-who-fails") ? 0 : 1);
    return member->first;
  }
  return std::nullopt;
}

void EndpointPool::Succeeded(size_t endpoint) {
  auto found = members_.find(endpoint);
  if (found == members_.end() || found->second.failures == 0) return;
  found->second.failures = 0;
  found->second.shunned_until = Instant{};
  ++version_;
}

void EndpointPool::Failed(size_t endpoint, Instant now) {
  auto found = members_.find(endpoint);
  if (found == members_.end()) return;
  Member& member = found->second;
  member.shunned_until =
      now + kShunBase / 2 + FullJitter(member.failures, kShunBase, kShunCap, prng_);
  ++member.failures;
  ++version_;
}

bool EndpointPool::AnyHealthy(Instant now) const {
  return std::any_of(members_.begin(), members_.end(),
                     [now](const auto& member) { return member.second.shunned_until <= now; });
}

EndpointPool::Change EndpointPool::Set(const std::vector<Endpoint>& endpoints) {
  Change change;
  for (auto member = members_.begin(); member != members_.end();) {
    const bool stays =
        std::any_of(endpoints.begin(), endpoints.end(), [&member](const Endpoint& endpoint) {
          return endpoint.name == member->second.endpoint.name;
        });
    if (!stays) change.removed.push_back(member->first);
    member = stays ? std::next(member) : members_.erase(member);
  }
  for (const Endpoint& endpoint : endpoints) {
    if (std::optional<size_t> known = Find(endpoint.name)) {
      members_[*known].endpoint.fallback = endpoint.fallback;
      continue;
    }
    change.added.push_back(next_id_);
    members_[next_id_++].endpoint = endpoint;
  }
  ++version_;
  return change;
}

std::string_view EndpointPool::NameOf(size_t endpoint) const {
  auto found = members_.find(endpoint);
  return found == members_.end() ? std::string_view() : found->second.endpoint.name;
}

std::optional<size_t> EndpointPool::Find(std::string_view name) const {
  for (const auto& [id, member] : members_) {
    if (member.endpoint.name == name) return id;
  }
  return std::nullopt;
}

std::vector<EndpointPool::State> EndpointPool::States() const {
  std::vector<State> states;
  for (const auto& [id, member] : members_) {
    states.push_back({.id = id,
                      .name = member.endpoint.name,
                      .fallback = member.endpoint.fallback,
                      .shunned_until = member.shunned_until});
  }
  return states;
}

Duration FullJitter(int failures, Duration base, Duration cap, Prng& prng) {
  const Duration bound = std::min(cap, base * (int64_t{1} << std::min(failures, kDoublingsMax)));
  return Duration(prng.Between(1, bound.count()));
}

}  // namespace conclave
