// ServiceFilter: which of a service's instances somebody wants to see. And SnapshotFilter: the pure
// function from a snapshot of all to one of those.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "conclave/discovery/snapshot.h"
#include "conclave/registry/instance.h"

namespace conclave {

// Everything that is set must hold.
struct ServiceFilter {
  // Instances of this zone, as long as one of them serves; else those of all zones (of all in
  // `zones`, if that is set): Snapshot::spilled_over().
  std::string prefer_zone{};
  // Only of these zones. Empty: of all.
  std::vector<std::string> zones{};
  // With all of these tags, and with none of those.
  std::vector<std::string> tags{};
  std::vector<std::string> exclude_tags{};
  // Of this version: "1.4.2", or with a star at its end of all that begin so: "1.4.*".
  std::string version{};
  // In one of these states. Empty: in any.
  std::vector<InstanceState> states{};
  // At most so many, for services with far more instances than one client should be connected to.
  // Which ones depends on subset_key and their addresses alone, in a way that few change when
  // instances come and go, and that the clients of a service are spread evenly over its instances
  // if their keys differ.
  // Counts and keeps only those that serve. 0: all.
  size_t max_instances = 0;
  // Who this client is. Empty: this host and process.
  std::string subset_key{};

  friend bool operator==(const ServiceFilter&, const ServiceFilter&) = default;
};

class SnapshotFilter {
 public:
  // InvalidArgument for a filter that nothing can pass, or whose parts contradict one another.
  static absl::Status Validate(const ServiceFilter& filter);

  // The same for a channel, which may prefer a zone in a way of its own: prefer_zone, if not empty.
  static absl::Status ValidateForCalls(const ServiceFilter& filter, std::string_view prefer_zone);

  // `process` stands in for an empty subset_key.
  SnapshotFilter(ServiceFilter filter, std::string process);

  // Lets everything through.
  bool trivial() const { return trivial_; }
  std::shared_ptr<const Snapshot> Apply(const std::shared_ptr<const Snapshot>& all) const;
  // Equal filters, and only those, have equal names.
  static std::string NameOf(const ServiceFilter& filter);

 private:
  bool Passes(const Instance& instance) const;
  void KeepSubset(InstanceList::Entries* entries) const;

  const ServiceFilter filter_;
  const std::string subset_key_;
  const bool trivial_;
};

}  // namespace conclave
