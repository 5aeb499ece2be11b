// A file of the log that is put aside when it has grown.
#pragma once

#include <spdlog/sinks/sink.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace conclave::app {

// As etcd rotates: a file that would grow beyond `file_bytes_max` becomes NAME-TIME.ENDING, where
// TIME is that of the rotation, 2006-01-02T15-04-05.000; then it is packed, if that is wanted, and
// what is too old or too much goes.
struct LogRotation {
  uint64_t file_bytes_max = 0;   // 0: the file grows for ever
  uint64_t files = 0;            // of those put aside; 0: any number
  std::chrono::hours age_max{};  // 0: any age
  bool local_time = false;       // in the names; else UTC
  bool compress = false;         // by gzip: NAME-TIME.ENDING.gz
};

// A sink that appends to `path`, and creates it (and only it) if need be. Thread-safe; packing and
// removing are done by a thread of its own, for which closing waits. A line that is longer than the
// limit gets a file of its own.
//   InvalidArgument  it cannot be opened; the message says why
absl::StatusOr<spdlog::sink_ptr> OpenRotatedFile(const std::string& path,
                                                 const LogRotation& rotation);

}  // namespace conclave::app
