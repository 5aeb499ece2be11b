// Looks at the log's sealed segments again while others write on: whether they are still as they
// were written. Of the segment that is written to, recovery alone can judge.
//
// Thread: any; the files never change, though TruncatePrefix may take them away. Memory: one
// segment.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/env/disk.h"

namespace conclave::wal {

// The names of all segments, oldest first.
[[nodiscard]] absl::StatusOr<std::vector<std::string>> ListSegments(env::Disk& disk);

// Reads the segment `name`, which `next` follows.
//   DataLoss   it is damaged
//   NotFound   one of the two has been removed
[[nodiscard]] absl::Status CheckSealed(env::Disk& disk, std::string_view name,
                                       std::string_view next);

}  // namespace conclave::wal
