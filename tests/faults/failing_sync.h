// The scene of a disk that fails: one member of three, under load.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

struct FailingSync {
  int exit_code = 0;       // of the member whose sync has failed; minus a signal
  std::string last_words;  // the last line it printed
  absl::Duration back{};   // from its new start until it was healthy
  int acknowledged = 0;    // writes, before and after
  int lost = 0;            // of them, summed up over the members that lack them
  // Of its log at its end: where the last record stands. What the next start wrote first into the
  // log: from where on; of our own servers only.
  uint64_t last_record = 0;
  std::optional<uint64_t> first_write{};
};

// One of these calls of the leader, or of a follower, fails with EIO while clients write; it ends,
// is started again and catches up. Unavailable: nothing can be traced here (CanTrace says why).
absl::StatusOr<FailingSync> RunFailingSync(ServerKind kind, bool leader,
                                           const std::string& calls = "fdatasync,fsync");

}  // namespace conclave::testing
