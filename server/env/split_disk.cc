#include "conclave/server/env/split_disk.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/status.h"

namespace conclave::env {
namespace {

constexpr std::string_view kLock = "lock";

}  // namespace

SplitDisk::SplitDisk(std::shared_ptr<Disk> first, std::string_view name,
                     std::shared_ptr<Disk> second)
    : first_(std::move(first)), name_(name), second_(std::move(second)) {
  CONCLAVE_CHECK(!name_.empty() && name_.find('/') == std::string::npos, name_);
}

SplitDisk::Place SplitDisk::Find(std::string_view path) const {
  if (path == name_) return {second_.get(), ""};
  if (path.size() > name_.size() && path.starts_with(name_) && path[name_.size()] == '/') {
    return {second_.get(), path.substr(name_.size() + 1)};
  }
  return {first_.get(), path};
}

std::string SplitDisk::Describe() const {
  return Concat(first_->Describe(), " (", name_, " at ", second_->Describe(), ")");
}

absl::StatusOr<std::unique_ptr<File>> SplitDisk::Open(std::string_view path, OpenMode mode) {
  const Place place = Find(path);
  return place.disk->Open(place.path, mode);
}

absl::Status SplitDisk::CreateDirectory(std::string_view path) {
  if (path == name_) {
    created_ = true;
    return absl::OkStatus();
  }
  const Place place = Find(path);
  return place.disk->CreateDirectory(place.path);
}

absl::StatusOr<std::vector<std::string>> SplitDisk::List(std::string_view path) {
  const Place place = Find(path);
  CONCLAVE_ASSIGN_OR_RETURN(std::vector<std::string> names, place.disk->List(place.path));
  if (path == name_) {
    std::erase(names, kLock);
    if (names.empty() && !created_) {
      return absl::NotFoundError(Concat(second_->Describe(), " is empty"));
    }
  } else if (path.empty()) {
    std::erase(names, name_);
    const absl::Status split = List(name_).status();
    if (split.ok()) names.insert(std::upper_bound(names.begin(), names.end(), name_), name_);
    if (!split.ok() && !absl::IsNotFound(split)) return split;
  }
  return names;
}

absl::Status SplitDisk::Rename(std::string_view from, std::string_view to) {
  const Place source = Find(from);
  const Place target = Find(to);
  CONCLAVE_CHECK(source.disk == target.disk, "a rename from one disk to the other");
  return source.disk->Rename(source.path, target.path);
}

absl::Status SplitDisk::Remove(std::string_view path) {
  const Place place = Find(path);
  return place.disk->Remove(place.path);
}

absl::Status SplitDisk::SyncDirectory(std::string_view path) {
  const Place place = Find(path);
  return place.disk->SyncDirectory(place.path);
}

absl::StatusOr<std::unique_ptr<Lock>> SplitDisk::LockFile(std::string_view path) {
  const Place place = Find(path);
  return place.disk->LockFile(place.path);
}

absl::StatusOr<Space> SplitDisk::FreeSpace() { return first_->FreeSpace(); }

}  // namespace conclave::env
