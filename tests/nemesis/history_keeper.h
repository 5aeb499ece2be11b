// HistoryKeeper: what clients of real servers did and heard, and what the store says happened, in
// the terms of the checkers.
//
// Thread-safe. Time is the machine's monotonic clock; all clients are in this process, so that
// their times compare.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/tests/nemesis/holdings.h"
#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"

namespace conclave::nemesis {

Instant Now();

class HistoryKeeper {
 public:
  void Add(sim::KvOperation operation);
  void Add(sim::LeaseHistory lease);
  void Add(sim::WatchHistory watch);
  void Add(Holding holding);
  // The first time that anybody heard of these revisions.
  void Heard(const WatchBatch& batch);

  struct Counts {
    int64_t done = 0;
    int64_t refused = 0;
    int64_t unknown = 0;
    size_t watches = 0;
    size_t leases = 0;
    size_t holdings = 0;
    size_t revisions = 0;
    absl::Duration longest_pause{};  // without an acknowledged write
  };

  // With all members healthy and all clients at rest: reads the whole history from each of them and
  // holds everything against it. Not OK: it could not be read.
  absl::StatusOr<sim::Complaints> Check(const std::vector<std::string>& endpoints);
  Counts counts() const;

 private:
  absl::StatusOr<sim::TrueHistory> Read(const std::string& endpoint) const;

  mutable std::mutex mutex_;
  std::vector<sim::KvOperation> operations_;
  std::vector<sim::LeaseHistory> leases_;
  std::vector<sim::WatchHistory> watches_;
  std::vector<Holding> holdings_;
  std::map<int64_t, Instant> heard_;
  size_t revisions_ = 0;
};

// A watch's events as the checkers want them.
void Note(const WatchBatch& batch, sim::WatchHistory* watch);
sim::SeenKey Seen(const KeyValue& kv);

}  // namespace conclave::nemesis
