#include "conclave/discovery/endpoint_feed.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

constexpr int64_t kWeightUnset = 100;

uint32_t WeightOf(const Instance& instance) {
  return static_cast<uint32_t>(
      std::clamp<int64_t>(instance.weight.value_or(kWeightUnset), 0, xds::EndpointSet::kWeightMax));
}

}  // namespace

EndpointFeed::EndpointFeed(Service service, std::shared_ptr<WatchedService> watched, Target target,
                           std::shared_ptr<HostResolver> resolver)
    : service_(std::move(service)),
      watched_(std::move(watched)),
      target_(std::move(target)),
      resolver_(std::move(resolver)) {
  number_ = resolver_->Join([this] { Update(); });
  subscription_ = service_.Subscribe([this](const Snapshot&, const Delta&) { Update(); });
}

EndpointFeed::~EndpointFeed() {
  subscription_.Cancel();
  resolver_->Leave(number_);
}

EndpointFeed::Stats EndpointFeed::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void EndpointFeed::Update() {
  std::lock_guard lock(mutex_);
  const std::shared_ptr<const Snapshot> snapshot = service_.snapshot();
  if (!snapshot->known()) return;
  Skipped skipped;
  bool waiting = false;
  const std::vector<xds::EndpointSet::Candidate> candidates = Gather(*snapshot, &skipped, &waiting);
  xds::EndpointSet endpoints = xds::EndpointSet::Arrange(candidates, target_.layout, &skipped);
  Complain(skipped);
  // Only names, and none resolved yet: that is not "no instances", so calls had better wait a
  // little.
  if (endpoints.empty() && waiting) return;
  stats_.endpoints = static_cast<int64_t>(endpoints.size());
  stats_.left_out = static_cast<int64_t>(skipped.size());
  ++stats_.updates;
  watched_->metrics().CountEndpointUpdate(stats_.endpoints, stats_.left_out);
  target_.deliver(std::move(endpoints));
}

std::vector<xds::EndpointSet::Candidate> EndpointFeed::Gather(const Snapshot& snapshot,
                                                              Skipped* skipped, bool* waiting) {
  std::vector<xds::EndpointSet::Candidate> candidates;
  struct Named {
    uint16_t port;
    const Instance* instance;
  };
  std::map<std::string, std::vector<Named>> by_name;
  for (const Instance& instance : snapshot.instances()) {
    if (instance.state != InstanceState::kServing) continue;
    const absl::StatusOr<xds::HostPort> parts = xds::ParseHostPort(instance.address);
    if (!parts.ok()) {
      skipped->push_back({instance.address, std::string(parts.status().message())});
    } else if (xds::LooksLikeIp(parts->host)) {
      candidates.push_back(
          {.address = instance.address, .zone = instance.zone, .weight = WeightOf(instance)});
    } else {
      by_name[parts->host].push_back({.port = parts->port, .instance = &instance});
    }
  }
  std::set<std::string> hosts;
  for (const auto& [host, named] : by_name) hosts.insert(host);
  for (const auto& [host, answer] : resolver_->Want(number_, hosts)) {
    *waiting |= !answer.resolved;
    if (!answer.error.empty()) {
      skipped->push_back(
          {host, absl::StrCat("its name cannot be resolved (", answer.error, ")",
                              answer.addresses.empty() ? "" : ", old addresses used")});
    }
    for (const Named& named : by_name[host]) {
      for (const std::string& ip : answer.addresses) {
        candidates.push_back({.address = xds::Endpoint{.ip = ip, .port = named.port}.ToString(),
                              .zone = named.instance->zone,
                              .weight = WeightOf(*named.instance)});
      }
    }
  }
  return candidates;
}

void EndpointFeed::Complain(const Skipped& skipped) {
  std::set<std::string> complaints;
  for (const auto& [address, reason] : skipped) {
    complaints.insert(absl::StrCat("\"", address, "\": ", reason));
  }
  size_t fresh = 0;
  for (const std::string& line : complaints) {
    if (complaints_.contains(line) || ++fresh > kComplaintsMax) continue;
    watched_->Log(LogLevel::kWarning, absl::StrCat("left out the address ", line));
  }
  if (fresh > kComplaintsMax) {
    watched_->Log(LogLevel::kWarning,
                  absl::StrCat("left out ", fresh - kComplaintsMax, " more addresses"));
  }
  complaints_ = std::move(complaints);
}

}  // namespace conclave
