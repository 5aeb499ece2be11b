// SplitDisk: one tree on two disks. The directory `name` of the first disk's root, with all that is
// in it, lies on the second one, whose root it is (--wal-dir: the log on a disk of its own).
//
// Thread-safe as its two disks are. The second root is there as soon as its disk is; the tree shows
// the directory when it is created there, or has files. A file "lock" in the second root is left
// out: it guards the root, and is not part of the tree.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/server/env/disk.h"

namespace conclave::env {

class SplitDisk final : public Disk {
 public:
  // `name` is a single word.
  SplitDisk(std::shared_ptr<Disk> first, std::string_view name, std::shared_ptr<Disk> second);

  std::string Describe() const override;
  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override;
  absl::Status CreateDirectory(std::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override;
  absl::Status Rename(std::string_view from, std::string_view to) override;
  absl::Status Remove(std::string_view path) override;
  absl::Status SyncDirectory(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<Lock>> LockFile(std::string_view path) override;
  // Of the first disk.
  absl::StatusOr<Space> FreeSpace() override;

 private:
  struct Place {
    Disk* disk;
    std::string_view path;
  };
  Place Find(std::string_view path) const;

  const std::shared_ptr<Disk> first_;
  const std::string name_;
  const std::shared_ptr<Disk> second_;
  std::atomic<bool> created_{false};  // the directory, in this life
};

}  // namespace conclave::env
