#include "conclave/discovery/private_directory.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

constexpr char kPrefix[] = "conclave-channel-";
constexpr char kLockFile[] = "/lock";
constexpr int kEntriesMax = 10'000;  // of the parent directory that a sweep looks at
constexpr int kAttempts = 10;

// Opens and locks the directory's lock file; -1 if somebody else has it, or it is not there.
int Lock(const std::string& directory, int flags) {
  const std::string file = directory + kLockFile;
  const int lock = open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (lock < 0) return -1;
  struct stat held {};
  struct stat there {};
  // A sweep may have removed the file between the opening and the locking.
  if (flock(lock, LOCK_EX | LOCK_NB) == 0 && fstat(lock, &held) == 0 &&
      lstat(file.c_str(), &there) == 0 && held.st_ino == there.st_ino) {
    return lock;
  }
  close(lock);
  return -1;
}

bool Remove(const std::string& directory) {
  unlink((directory + "/ads").c_str());  // gone already if the server was shut down
  unlink((directory + kLockFile).c_str());
  return rmdir(directory.c_str()) == 0;
}

// Removes what killed processes of this user have left behind.
void Sweep(const std::string& parent) {
  std::error_code error;
  int entries = 0;
  for (std::filesystem::directory_iterator it(parent, error), end; !error && it != end;
       it.increment(error)) {
    if (++entries > kEntriesMax) return;
    if (!it->path().filename().string().starts_with(kPrefix)) continue;
    const std::string directory = it->path().string();
    struct stat status {};
    if (lstat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
        status.st_uid != geteuid()) {
      continue;
    }
    const int lock = Lock(directory, 0);
    if (lock < 0) continue;
    (void)Remove(directory);
    close(lock);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrivateDirectory>> PrivateDirectory::Create() {
  constexpr size_t kParentMax =
      sizeof(sockaddr_un::sun_path) - sizeof(kPrefix) - sizeof("/XXXXXX/ads");
  std::string last_error;
  for (const char* variable : {"XDG_RUNTIME_DIR", "TMPDIR", ""}) {
    const char* parent = *variable != '\0' ? std::getenv(variable) : "/tmp";
    if (parent == nullptr || *parent != '/' || std::strlen(parent) > kParentMax) continue;
    Sweep(parent);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      std::string path = absl::StrCat(parent, "/", kPrefix, "XXXXXX");
      if (mkdtemp(path.data()) == nullptr) {  // of mode 0700
        last_error = absl::StrCat(path, ": ", std::strerror(errno));
        break;
      }
      const int lock = Lock(path, O_CREAT);
      if (lock >= 0) {
        return std::unique_ptr<PrivateDirectory>(new PrivateDirectory(std::move(path), lock));
      }
      last_error = absl::StrCat(path, ": cannot be locked");
      (void)Remove(path);
    }
  }
  return absl::UnavailableError(
      absl::StrCat("cannot make a directory for the channel's socket: ", last_error));
}

PrivateDirectory::~PrivateDirectory() {
  if (!Remove(path_)) spdlog::warn("cannot remove {}: {}", path_, std::strerror(errno));
  close(lock_);
}

}  // namespace conclave
