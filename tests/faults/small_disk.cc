#include "conclave/tests/faults/small_disk.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "conclave/base/check.h"

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

void SmallDisk::Fill() {
  const int file = open(Neighbour().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  CONCLAVE_CHECK(file >= 0, Neighbour(), ": ", std::strerror(errno));
  off_t size = 0;
  while (const std::uintmax_t room = std::filesystem::space(directory_).available) {
    // The member writes as well: then there is less room than there was, and nothing was taken.
    const int error = posix_fallocate(file, size, static_cast<off_t>(room));
    CONCLAVE_CHECK(error == 0 || error == ENOSPC, Neighbour(), ": ", std::strerror(error));
    if (error == 0) size += static_cast<off_t>(room);
  }
  close(file);
}

void SmallDisk::Free() { std::filesystem::remove(Neighbour()); }

}  // namespace conclave::testing
