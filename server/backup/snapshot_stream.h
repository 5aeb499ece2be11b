// Maintenance.Snapshot: the state as a file of etcd's (database_task.h), in pieces of 32 KiB, and
// behind it the SHA-256 of all of it in a message of its own. Every message tells how many bytes of
// the file are still to come, and the cluster's version.
#pragma once

#include <memory>

#include "conclave/server/apply/state_machine.h"
#include "conclave/server/apply/stream_task.h"

namespace conclave::backup {

inline constexpr size_t kBlobBytes = 32 << 10;

[[nodiscard]] std::unique_ptr<apply::StreamTask> MakeSnapshotStream(apply::StateMachine* state);

}  // namespace conclave::backup
