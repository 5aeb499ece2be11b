// FileCheck: reads a member's files again, a slice at a time, so that damage is found before the
// day on which they are needed: all snapshots, and the log's sealed segments. What a running server
// has in memory is whole meanwhile, so a new snapshot mends it.
//
// Thread: one; files may be removed meanwhile. Memory: one segment, or a few chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conclave/server/env/disk.h"
#include "conclave/server/snapshot/reader.h"

namespace conclave::posix {

class FileCheck {
 public:
  struct Outcome {
    bool done = false;   // all files have been read
    std::string damage;  // of the file that was read last; empty: none
  };

  // `disk` must outlive it. What is there now will be read.
  FileCheck(env::Disk* disk, uint64_t cluster_id);

  // Reads a segment, or kSliceBytes of a snapshot. Not after it was done.
  Outcome Next();

 private:
  static constexpr uint64_t kSliceBytes = uint64_t{4} << 20;

  std::string ReadSnapshot();
  std::string ReadSegment();

  env::Disk* const disk_;
  const uint64_t cluster_id_;
  std::vector<std::string> snapshots_;
  std::vector<std::string> segments_;         // the last one is written to
  std::unique_ptr<snapshot::Reader> reader_;  // of snapshots_.back()
};

}  // namespace conclave::posix
