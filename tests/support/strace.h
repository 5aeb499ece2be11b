// strace: system calls of real processes that fail, or kill, at a given one.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

// OK, or why not: there is no strace here, or it is not permitted to trace. Asked once.
absl::Status CanTrace();

// The next one of these calls ("fdatasync,fsync") of each thread of this process fails with EIO.
// The tracer, which ends with the process.
absl::StatusOr<std::unique_ptr<ChildProcess>> FailNext(const std::string& calls, pid_t pid);

// Each of these calls of this process takes so much longer, until the tracer is gone.
absl::StatusOr<std::unique_ptr<ChildProcess>> DelayAll(const std::string& calls,
                                                       absl::Duration delay, pid_t pid);

// For TestCluster::Restart: runs a server whose n-th `call` (of each thread) kills it before it is
// carried out.
std::vector<std::string> KillingAt(const std::string& call, int n);
// Runs a server and writes its pwritev and fdatasync calls, with files, to `output`.
std::vector<std::string> RecordingWrites(const std::string& output);

}  // namespace conclave::testing
