#include "conclave/discovery/endpoint_feed.h"

#include <spdlog/spdlog.h>

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/xds/endpoint_set.h"

namespace conclave {

EndpointFeed::EndpointFeed(Service service, std::shared_ptr<ChannelHub> hub,
                           std::shared_ptr<HostResolver> resolver)
    : service_(std::move(service)), hub_(std::move(hub)), resolver_(std::move(resolver)) {
  number_ = resolver_->Join([this] { Update(); });
  subscription_ = service_.Subscribe([this](const Snapshot&, const Delta&) { Update(); });
}

EndpointFeed::~EndpointFeed() {
  subscription_.Cancel();
  resolver_->Leave(number_);
}

void EndpointFeed::Update() {
  absl::MutexLock lock(&mutex_);
  const std::shared_ptr<const Snapshot> snapshot = service_.snapshot();
  if (!snapshot->known()) return;

  std::vector<std::string> addresses;
  std::vector<xds::EndpointSet::Skipped> skipped;
  std::map<std::string, std::set<uint16_t>> by_name;  // host name -> ports
  for (const Instance& instance : snapshot->instances()) {
    if (instance.state != InstanceState::kServing) continue;
    const absl::StatusOr<xds::HostPort> parts = xds::ParseHostPort(instance.address);
    if (!parts.ok()) {
      skipped.push_back({instance.address, std::string(parts.status().message())});
    } else if (xds::LooksLikeIp(parts->host)) {
      addresses.push_back(instance.address);
    } else {
      by_name[parts->host].insert(parts->port);
    }
  }
  std::set<std::string> hosts;
  for (const auto& [host, ports] : by_name) hosts.insert(host);
  bool waiting = false;
  for (const auto& [host, answer] : resolver_->Want(number_, hosts)) {
    waiting |= !answer.resolved;
    if (!answer.error.empty()) {
      skipped.push_back(
          {host, absl::StrCat("its name cannot be resolved (", answer.error, ")",
                              answer.addresses.empty() ? "" : ", old addresses used")});
    }
    for (const uint16_t port : by_name[host]) {
      for (const std::string& ip : answer.addresses) {
        addresses.push_back(xds::Endpoint{.ip = ip, .port = port}.ToString());
      }
    }
  }
  xds::EndpointSet endpoints = xds::EndpointSet::FromAddresses(addresses, &skipped);
  std::set<std::string> complaints;
  for (const auto& [address, reason] : skipped) {
    complaints.insert(absl::StrCat("\"", address, "\": ", reason));
  }
  for (const std::string& line : complaints) {
    if (!complaints_.contains(line)) {
      spdlog::warn("service {}: left out the address {}", service_.name(), line);
    }
  }
  complaints_ = std::move(complaints);
  // Only names, and none resolved yet: that is not "no instances", so calls had better wait a
  // little.
  if (endpoints.empty() && waiting) return;
  hub_->SetEndpoints(service_.name(), std::move(endpoints));
}

}  // namespace conclave
