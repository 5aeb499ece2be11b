// The gates: scenes in which clusters of this kind have let their users down. Each runs against our
// server or Debian's etcd, measures, and says whether what was promised was kept.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::gates {

// How large; the defaults are for a test among others.
struct Scale {
  int failovers = 5;                 // of each kind
  int leases = 50'000;               // granted
  int expiring = 5'000;              // of them, all at once
  int64_t watched_bytes = 64 << 20;  // that the slow watcher does not read
};

struct Result {
  bool kept = false;
  std::string measured;  // for people
};

// Unimplemented: it cannot be measured here, and why.
struct Gate {
  std::string_view name;
  std::string_view promise;
  std::function<absl::StatusOr<Result>(testing::ServerKind, const Scale&)> run;
};

inline void PrintTo(const Gate& gate, std::ostream* out) { *out << gate.promise; }

const std::vector<Gate>& AllGates();

absl::StatusOr<Result> CandidateWithoutALease(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> LeaseUnderChangesOfLeader(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> WriteGapAfterAKill(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> WriteGapAfterAPause(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> ManyLeasesAtOnce(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> SlowWatcher(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> ZeroedFrame(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> FlippedBit(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> StatesThatDiffer(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> FullDisk(testing::ServerKind kind, const Scale& scale);
absl::StatusOr<Result> FailedSync(testing::ServerKind kind, const Scale& scale);

// "1.23 s".
std::string Seconds(absl::Duration duration);
// Of a sorted or unsorted list, 0 <= share <= 1; zero for an empty one.
absl::Duration Percentile(std::vector<absl::Duration> times, double share);

}  // namespace conclave::gates
