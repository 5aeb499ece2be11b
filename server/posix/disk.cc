#include "conclave/server/posix/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/status.h"

namespace conclave::posix {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;
constexpr size_t kPiecesPerCall = 1024;  // IOV_MAX on Linux
constexpr size_t kZeroBytes = size_t{256} << 10;
constexpr std::string_view kLockName = "lock";

enum class While { kReading, kOther };

// "<what> <path>: No space left on device", with the code that env/disk.h promises.
absl::Status SystemError(std::string_view what, std::string_view path, int error,
                         While during = While::kOther) {
  const std::string message =
      Concat("cannot ", what, " ", path, ": ", std::system_category().message(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    case EIO:
      return during == While::kReading ? absl::DataLossError(message)
                                       : absl::InternalError(message);
    default:
      return absl::InternalError(message);
  }
}

// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  int value() const { return value_; }

 private:
  int value_;
};

class PosixFile : public env::File {
 public:
  PosixFile(std::string path, Descriptor descriptor)
      : path_(std::move(path)), descriptor_(std::move(descriptor)) {}

  absl::Status Write(uint64_t offset, std::span<const std::string_view> pieces) override {
    std::array<iovec, kPiecesPerCall> vectors;
    while (!pieces.empty()) {
      const size_t count = std::min(pieces.size(), vectors.size());
      size_t bytes = 0;
      for (size_t i = 0; i < count; ++i) {
        vectors[i] = {const_cast<char*>(pieces[i].data()), pieces[i].size()};
        bytes += pieces[i].size();
      }
      CONCLAVE_RETURN_IF_ERROR(WriteAll(offset, bytes, vectors.data(), count));
      offset += bytes;
      pieces = pieces.subspan(count);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Read(uint64_t offset, std::span<char> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t count = pread(descriptor_.value(), out.data() + done, out.size() - done,
                                  static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return SystemError("read", path_, errno, While::kReading);
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }

  absl::Status Sync() override {
    // EINTR does not happen to fdatasync on regular files; whatever it says, it has not synced.
    return fdatasync(descriptor_.value()) == 0 ? absl::OkStatus()
                                               : SystemError("sync", path_, errno);
  }

  absl::Status Preallocate(uint64_t offset, uint64_t bytes) override {
    static const std::string* const zeros = new std::string(kZeroBytes, '\0');
    while (bytes > 0) {
      const std::string_view piece(zeros->data(), std::min<uint64_t>(bytes, kZeroBytes));
      CONCLAVE_RETURN_IF_ERROR(env::File::Write(offset, piece));
      offset += piece.size();
      bytes -= piece.size();
    }
    return absl::OkStatus();
  }

  absl::Status Truncate(uint64_t size) override {
    return ftruncate(descriptor_.value(), static_cast<off_t>(size)) == 0
               ? absl::OkStatus()
               : SystemError("truncate", path_, errno);
  }

  absl::StatusOr<uint64_t> Size() override {
    struct stat info;
    if (fstat(descriptor_.value(), &info) != 0) return SystemError("look at", path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

 private:
  using env::File::Write;

  absl::Status WriteAll(uint64_t offset, size_t bytes, iovec* vectors, size_t count) {
    while (bytes > 0) {
      const ssize_t written = pwritev(descriptor_.value(), vectors, static_cast<int>(count),
                                      static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return SystemError("write", path_, errno);
      if (written == 0) return SystemError("write", path_, ENOSPC);
      offset += static_cast<uint64_t>(written);
      bytes -= static_cast<size_t>(written);
      size_t rest = static_cast<size_t>(written);
      while (count > 0 && rest >= vectors->iov_len) {
        rest -= vectors->iov_len;
        ++vectors;
        --count;
      }
      if (count > 0) {
        vectors->iov_base = static_cast<char*>(vectors->iov_base) + rest;
        vectors->iov_len -= rest;
      }
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const Descriptor descriptor_;
};

class PosixLock : public env::Lock {
 public:
  explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  const Descriptor descriptor_;  // flock ends when it is closed
};

// Group and others must not get at keys and secrets.
absl::Status CheckPrivate(const std::string& path, const struct stat& info) {
  if (info.st_uid != geteuid()) {
    return absl::FailedPreconditionError(Concat("data directory ", path, " belongs to user ",
                                                info.st_uid, ", but this server runs as user ",
                                                geteuid()));
  }
  if ((info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "data directory %s has mode %04o: group or others may read it; run chmod 700 %s", path,
        info.st_mode & 07777, path));
  }
  return absl::OkStatus();
}

class PosixDisk : public env::Disk {
 public:
  explicit PosixDisk(std::string root) : root_(std::move(root)) {}

  std::string Describe() const override { return root_; }

  absl::StatusOr<std::unique_ptr<env::File>> Open(std::string_view path,
                                                  env::OpenMode mode) override {
    int flags = O_CLOEXEC | O_NOFOLLOW;
    switch (mode) {
      case env::OpenMode::kRead:
      case env::OpenMode::kReadAgain:
        flags |= O_RDONLY;
        break;
      case env::OpenMode::kReadWrite:
        flags |= O_RDWR;
        break;
      case env::OpenMode::kCreate:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
      case env::OpenMode::kCreateOrReset:
        flags |= O_RDWR | O_CREAT | O_TRUNC;
        break;
    }
    std::string full = Full(path);
    Descriptor descriptor(open(full.c_str(), flags, kFileMode));
    if (descriptor.value() < 0) return SystemError("open", full, errno);
    if (mode == env::OpenMode::kReadAgain) {
      (void)posix_fadvise(descriptor.value(), 0, 0, POSIX_FADV_DONTNEED);
    }
    return std::make_unique<PosixFile>(std::move(full), std::move(descriptor));
  }

  absl::Status CreateDirectory(std::string_view path) override {
    const std::string full = Full(path);
    if (mkdir(full.c_str(), kDirectoryMode) == 0 || errno == EEXIST) return absl::OkStatus();
    return SystemError("create directory", full, errno);
  }

  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override {
    const std::string full = Full(path);
    DIR* const directory = opendir(full.c_str());
    if (directory == nullptr) return SystemError("list", full, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    closedir(directory);
    if (error != 0) return SystemError("list", full, error, While::kReading);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status Rename(std::string_view from, std::string_view to) override {
    const std::string full = Full(from);
    return rename(full.c_str(), Full(to).c_str()) == 0 ? absl::OkStatus()
                                                       : SystemError("rename", full, errno);
  }

  absl::Status Remove(std::string_view path) override {
    const std::string full = Full(path);
    return unlink(full.c_str()) == 0 ? absl::OkStatus() : SystemError("remove", full, errno);
  }

  absl::Status SyncDirectory(std::string_view path) override {
    const std::string full = Full(path);
    const Descriptor descriptor(open(full.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (descriptor.value() < 0) return SystemError("open directory", full, errno);
    return fsync(descriptor.value()) == 0 ? absl::OkStatus()
                                          : SystemError("sync directory", full, errno);
  }

  absl::StatusOr<std::unique_ptr<env::Lock>> LockFile(std::string_view path) override {
    const std::string full = Full(path);
    Descriptor descriptor(open(full.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kFileMode));
    if (descriptor.value() < 0) return SystemError("open", full, errno);
    if (flock(descriptor.value(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return SystemError("lock", full, errno);
      return absl::FailedPreconditionError(Concat(full, " is locked by another process"));
    }
    return std::make_unique<PosixLock>(std::move(descriptor));
  }

  absl::StatusOr<env::Space> FreeSpace() override {
    struct statvfs info;
    if (statvfs(root_.c_str(), &info) != 0) return SystemError("look at", root_, errno);
    return env::Space{.total_bytes = info.f_blocks * info.f_frsize,
                      .free_bytes = info.f_bavail * info.f_frsize};
  }

 private:
  std::string Full(std::string_view path) const {
    return path.empty() ? root_ : Concat(root_, "/", path);
  }

  const std::string root_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<env::Disk>> OpenDisk(const std::string& path) {
  if (mkdir(path.c_str(), kDirectoryMode) == 0) {
    // Its name must be as durable as what it will hold.
    const size_t slash = path.find_last_of('/');
    const std::string parent = slash == std::string::npos ? "."
                               : slash == 0               ? "/"
                                                          : path.substr(0, slash);
    CONCLAVE_RETURN_IF_ERROR(PosixDisk(parent).SyncDirectory(""));
  } else if (errno != EEXIST) {
    return SystemError("create data directory", path, errno);
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return SystemError("look at", path, errno);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(Concat("data directory ", path, " is not a directory"));
  }
  CONCLAVE_RETURN_IF_ERROR(CheckPrivate(path, info));
  return std::make_unique<PosixDisk>(path);
}

bool HasLockFile(env::Disk& disk) { return disk.Open(kLockName, env::OpenMode::kRead).ok(); }

absl::StatusOr<std::unique_ptr<env::Lock>> LockDataDirectory(env::Disk& disk) {
  auto lock = disk.LockFile(kLockName);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(
        Concat("data directory ", disk.Describe(), " is in use by another process"));
  }
  return lock;
}

}  // namespace conclave::posix
