#include "conclave/tests/faults/small_disk.h"

#include <sys/mount.h>

#include <filesystem>
#include <utility>

namespace conclave::testing {

SmallDisk::SmallDisk(std::string directory) : directory_(std::move(directory)) {}
SmallDisk::~SmallDisk() { umount2(directory_.c_str(), MNT_DETACH); }

std::unique_ptr<SmallDisk> SmallDisk::Over(const std::string& directory, const std::string& size) {
  const std::string aside = directory + ".aside";
  std::filesystem::rename(directory, aside);
  std::filesystem::create_directory(directory);
  if (mount("tmpfs", directory.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) {
    std::filesystem::remove(directory);
    std::filesystem::rename(aside, directory);
    return nullptr;
  }
  std::filesystem::permissions(directory, std::filesystem::perms::owner_all);
  std::filesystem::copy(
      aside, directory,
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::update_existing);
  return std::unique_ptr<SmallDisk>(new SmallDisk(directory));
}

}  // namespace conclave::testing
