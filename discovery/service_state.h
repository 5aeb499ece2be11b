// ServiceState: from the batches of a watch to snapshots and deltas. Pure: no threads, time passed
// in.
//
// The instances are a function of the store's state alone, never of how it came about: an entry
// that turns unreadable leaves the set, as it would be absent for somebody who lists just now.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "conclave/client/core/types.h"
#include "conclave/discovery/discovery.h"
#include "conclave/registry/instance.h"

namespace conclave {

class ServiceState {
 public:
  struct Change {
    std::shared_ptr<const Snapshot> snapshot;  // null: nothing that anybody could see has changed
    std::vector<std::string> complaints;       // lines for the log, each only once
  };

  explicit ServiceState(std::string service) : service_(std::move(service)) {}

  [[nodiscard]] Change Apply(const WatchBatch& batch, absl::Time now);

  // The snapshot before anything was heard.
  std::shared_ptr<const Snapshot> Unknown() const;
  static Delta Difference(const Snapshot& before, const Snapshot& after);

 private:
  // Both return whether the instances have changed.
  bool Take(const KeyValue& kv, std::vector<std::string>* complaints);
  bool Drop(const std::string& key);

  const std::string service_;
  std::map<std::string, Instance> instances_;
  std::map<std::string, int64_t> unreadable_;  // key -> mod_revision of what was logged
  int64_t revision_ = 0;
  std::optional<absl::Time> stale_since_;
  absl::Time changed_at_ = absl::InfinitePast();
};

}  // namespace conclave
