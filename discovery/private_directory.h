// PrivateDirectory: where the channels' socket lies: a new directory that only this user may enter.
//
// It goes with this object. Should the process be killed, the next one of this user that makes such
// a directory removes it: each holds a lock on a file inside, which ends with its process.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace conclave {

class PrivateDirectory {
 public:
  // In $XDG_RUNTIME_DIR, $TMPDIR or /tmp, whichever comes first that can be used.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<PrivateDirectory>> Create();
  ~PrivateDirectory();
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string SocketPath() const { return path_ + "/ads"; }

 private:
  PrivateDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  const std::string path_;
  const int lock_;  // an open file, locked
};

}  // namespace conclave
