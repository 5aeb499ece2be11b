// A run of the nemesis: a cluster of real processes under load and faults, and what the checkers
// say of it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/tests/nemesis/history_keeper.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::nemesis {

struct RunOptions {
  testing::ServerKind kind = testing::ServerKind::kConclave;
  int members = 3;
  absl::Duration duration = absl::Seconds(60);
  uint64_t seed = 1;
};

struct Report {
  sim::Complaints complaints;
  HistoryKeeper::Counts counts;
  std::map<std::string, int> faults;
  std::string left_out;  // of the faults, and why; empty: none
};

// NotFound: no such server here. Other errors: the cluster did not come back.
absl::StatusOr<Report> Run(const RunOptions& options);
// For people.
std::string Describe(const Report& report);

}  // namespace conclave::nemesis
