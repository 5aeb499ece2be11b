// SnapshotPart: a snapshot on its way to the disk: "<path>.part" until it is complete, compared
// with its hash and durable. Destroying it before removes what there is.
//
// Thread: one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave {

class SnapshotPart {
 public:
  // Fails if it cannot be created; replaces one that was left over.
  static absl::StatusOr<std::unique_ptr<SnapshotPart>> Create(const std::string& path);
  ~SnapshotPart();
  SnapshotPart(const SnapshotPart&) = delete;
  SnapshotPart& operator=(const SnapshotPart&) = delete;

  absl::Status Append(std::string_view bytes);
  // The last 32 bytes must be the SHA-256 of those before: DataLoss if not.
  absl::Status Finish();

  uint64_t bytes() const { return bytes_; }

 private:
  struct Hash;
  SnapshotPart(std::string path, int file);
  absl::Status Write(std::string_view bytes);
  absl::Status Failed(std::string_view what) const;

  const std::string path_;
  const std::string part_path_;
  int file_;
  std::unique_ptr<Hash> hash_;
  std::string held_back_;  // the last bytes so far: perhaps the hash
  uint64_t bytes_ = 0;
  bool finished_ = false;
};

}  // namespace conclave
