#include "conclave/discovery/xds/catalog.h"

#include <algorithm>
#include <utility>

namespace conclave::xds {

void Catalog::Declare(std::string_view listener, std::string_view cluster,
                      const CallPolicy& policy) {
  Listener& entry = listeners_[std::string(listener)];
  if (entry.version != 0 && entry.cluster == cluster && entry.policy == policy) return;
  Declared& declared = clusters_[std::string(cluster)];
  ++declared.listeners;
  if (entry.version != 0) LeaveCluster(entry.cluster);
  if (declared.cluster.version == 0 || declared.cluster.policy != policy) {
    declared.cluster = {.policy = policy, .version = ++version_};
  }
  entry = {.cluster = std::string(cluster), .policy = policy, .version = ++version_};
}

void Catalog::LeaveCluster(const std::string& cluster) {
  const auto found = clusters_.find(cluster);
  if (--found->second.listeners == 0) clusters_.erase(found);
}

void Catalog::Withdraw(std::string_view listener) {
  const auto found = listeners_.find(listener);
  if (found == listeners_.end()) return;
  LeaveCluster(found->second.cluster);
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

std::optional<Catalog::Cluster> Catalog::FindCluster(std::string_view cluster) const {
  const auto found = clusters_.find(cluster);
  if (found != clusters_.end()) return found->second.cluster;
  if (!options_.open) return std::nullopt;
  return Cluster{.policy = options_.policy, .version = 1};
}

const Catalog::Assignment* Catalog::FindEndpoints(std::string_view cluster) const {
  const auto found = assignments_.find(cluster);
  return found == assignments_.end() ? nullptr : &found->second;
}

}  // namespace conclave::xds
