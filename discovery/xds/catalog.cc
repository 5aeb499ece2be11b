#include "conclave/discovery/xds/catalog.h"

#include <algorithm>
#include <utility>

namespace conclave::xds {

void Catalog::Declare(std::string_view listener, std::string_view cluster,
                      const CallPolicy& policy) {
  Listener& entry = listeners_[std::string(listener)];
  if (entry.version != 0 && entry.cluster == cluster && entry.policy == policy) return;
  entry = {.cluster = std::string(cluster), .policy = policy, .version = ++version_};
}

void Catalog::Withdraw(std::string_view listener) {
  const auto found = listeners_.find(listener);
  if (found == listeners_.end()) return;
  listeners_.erase(found);
  ++version_;
}

void Catalog::SetEndpoints(std::string_view cluster, EndpointSet endpoints) {
  Assignment& entry = assignments_[std::string(cluster)];
  if (entry.version != 0 && entry.endpoints == endpoints) return;
  entry = {.endpoints = std::move(endpoints), .version = ++version_};
}

void Catalog::ForgetEndpoints(std::string_view cluster) {
  const auto found = assignments_.find(cluster);
  if (found != assignments_.end()) assignments_.erase(found);
}

std::optional<Catalog::Listener> Catalog::FindListener(std::string_view listener) const {
  const auto found = listeners_.find(listener);
  if (found != listeners_.end()) return found->second;
  if (!options_.open || !std::all_of(listener.begin(), listener.end(), IsNameByte)) {
    return std::nullopt;
  }
  return Listener{.cluster = std::string(listener), .policy = options_.policy, .version = 1};
}

bool Catalog::HasCluster(std::string_view cluster) const {
  return options_.open || std::any_of(listeners_.begin(), listeners_.end(), [&](const auto& entry) {
           return entry.second.cluster == cluster;
         });
}

const Catalog::Assignment* Catalog::FindEndpoints(std::string_view cluster) const {
  const auto found = assignments_.find(cluster);
  return found == assignments_.end() ? nullptr : &found->second;
}

}  // namespace conclave::xds
