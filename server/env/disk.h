// The world's storage, as the deterministic core sees it: one directory with files in it.
//
// All calls are synchronous. What is durable when is spelled out per call, because everything that
// is acknowledged rests on it:
//
//   to make                          durable, call
//   bytes written into a file        File::Sync
//   the name of a new or moved file  Disk::SyncDirectory of the directory that holds it
//   the removal of a name            the same
//
// Errors: NotFound (no such file), AlreadyExists, PermissionDenied, ResourceExhausted (the disk is
// full), FailedPrecondition (locked by somebody else), DataLoss (the device cannot read it: EIO on
// read), Internal (any other failure of the device). A failed Write or Sync is never retried on the
// same file: its state is unknown, and the process ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave::env {

// An open file. Thread: one at a time. Closing happens in the destructor and makes nothing durable.
class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;

  // Writes the pieces behind each other from `offset` on, all of them or an error. Grows the file
  // where needed.
  [[nodiscard]] virtual absl::Status Write(uint64_t offset,
                                           std::span<const std::string_view> pieces) = 0;
  [[nodiscard]] absl::Status Write(uint64_t offset, std::string_view bytes) {
    return Write(offset, std::span<const std::string_view>(&bytes, 1));
  }

  // Fills `out` from `offset` on. The number of bytes is below out.size() only at the end of the
  // file.
  [[nodiscard]] virtual absl::StatusOr<size_t> Read(uint64_t offset, std::span<char> out) = 0;

  // All bytes written so far, and the size needed to find them, survive a crash (fdatasync).
  [[nodiscard]] virtual absl::Status Sync() = 0;

  // Turns [offset, offset + bytes) into zeros that really occupy the disk, and grows the file where
  // needed, so that later writes there can neither run out of space nor change metadata. Durable
  // after Sync.
  [[nodiscard]] virtual absl::Status Preallocate(uint64_t offset, uint64_t bytes) = 0;

  [[nodiscard]] virtual absl::Status Truncate(uint64_t size) = 0;
  [[nodiscard]] virtual absl::StatusOr<uint64_t> Size() = 0;
};

// Holds a lock while it lives.
class Lock {
 public:
  Lock() = default;
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  virtual ~Lock() = default;
};

struct Space {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // for this process
};

enum class OpenMode : uint8_t {
  kRead,       // must exist
  kReadAgain,  // the same; what the system has in memory of it is not used, if that can be helped
  kReadWrite,  // must exist
  kCreate,     // for reading and writing; must not exist
  kCreateOrReset,  // for reading and writing; an existing file is emptied
};

// One directory tree. Paths are relative to its root, with '/', without "." and ".."; "" is the
// root itself. Thread-safe for calls on different paths.
class Disk {
 public:
  Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  virtual ~Disk() = default;

  // Where the root is, for messages.
  [[nodiscard]] virtual std::string Describe() const = 0;

  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path,
                                                                   OpenMode mode) = 0;
  // OK if it is there already. Its parent must exist.
  [[nodiscard]] virtual absl::Status CreateDirectory(std::string_view path) = 0;
  // The names in a directory, sorted. NotFound if there is no such directory.
  [[nodiscard]] virtual absl::StatusOr<std::vector<std::string>> List(std::string_view path) = 0;
  // Within one directory; replaces an existing `to` in one step.
  [[nodiscard]] virtual absl::Status Rename(std::string_view from, std::string_view to) = 0;
  [[nodiscard]] virtual absl::Status Remove(std::string_view path) = 0;
  [[nodiscard]] virtual absl::Status SyncDirectory(std::string_view path) = 0;
  // Takes the lock of a file, creating the file; FailedPrecondition if another process or Disk
  // holds it. The lock ends with the process at the latest.
  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<Lock>> LockFile(std::string_view path) = 0;
  [[nodiscard]] virtual absl::StatusOr<Space> FreeSpace() = 0;
};

}  // namespace conclave::env
