// A Disk in memory with the crash semantics of a real one, chosen by a seed.
//
// Until synced, everything may be lost, and in any order: each unsynced write sector by sector (512
// bytes), each create, rename and remove of a directory by itself in order (a directory's journal
// is a log: a suffix is lost), sizes too. Crash(prng) decides. Files opened before a crash must be
// closed before, or fail afterwards with Internal.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/prng.h"
#include "conclave/server/env/disk.h"

namespace conclave::env {

// For tests, and for servers that need not outlive their process. Thread-safe. Memory: the files
// twice (as seen, as durable) plus pending writes.
class MemoryDisk : public Disk {
 public:
  static constexpr uint64_t kSectorBytes = 512;

  // What an operation is, for the hook below.
  enum class Operation : uint8_t {
    kWrite,
    kSync,
    kPreallocate,
    kTruncate,
    kOpenNew,
    kRename,
    kRemove,
    kSyncDirectory,
    kRead,
    kLock,
  };

  explicit MemoryDisk(std::string name = "memory") : name_(std::move(name)) {}
  ~MemoryDisk() override;

  std::string Describe() const override { return name_; }
  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override;
  absl::Status CreateDirectory(std::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override;
  absl::Status Rename(std::string_view from, std::string_view to) override;
  absl::Status Remove(std::string_view path) override;
  absl::Status SyncDirectory(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<Lock>> LockFile(std::string_view path) override;
  absl::StatusOr<Space> FreeSpace() override;

  // ---- Faults.

  // Called before each operation; an error makes it fail with that error and do nothing. A hook may
  // count operations to crash at the n-th, and may look at the disk. Null: no hook. Set it before
  // other threads use the disk.
  using Hook = absl::AnyInvocable<absl::Status(Operation operation, std::string_view path)>;
  void set_hook(Hook hook) { hook_ = std::move(hook); }

  // Power is lost. What was not synced is kept, lost or torn as `prng` decides. Locks end, open
  // files turn useless.
  void Crash(Prng& prng);
  // The process dies, the machine does not: everything written is kept. Locks end, open files turn
  // useless.
  void KillProcess();
  // Power is lost and a lazy disk keeps nothing at all that was not synced.
  void CrashLosingAll();
  // For tests that go through all ways to lose power: names are kept, and of each file all that was
  // written, but
  // - the end of the last write: only some of its first granules are there, never all;
  void CrashTearing(uint64_t granule_bytes, Prng& prng);
  // - the first sector that was not synced; of those behind it, some are there.
  void CrashReordering(Prng& prng);

  // Writing beyond `bytes` in all files together fails with ResourceExhausted.
  void set_capacity_bytes(uint64_t bytes);

  // ---- Looking and damaging, for tests. CHECKs that the file exists.

  [[nodiscard]] std::string Content(std::string_view path) const;
  // Replaces a file's content, durably, as rot does. May create the file.
  void SetContent(std::string_view path, std::string_view content);
  // Other bytes stand there from now on, for readers and after a crash; what was written and not
  // synced stays as it is. Within the file.
  void Overwrite(std::string_view path, uint64_t offset, std::string_view bytes);
  [[nodiscard]] bool Exists(std::string_view path) const;
  // All paths of files, sorted.
  [[nodiscard]] std::vector<std::string> Files() const;
  // A disk with the same content, all of it durable, without hook.
  [[nodiscard]] std::unique_ptr<MemoryDisk> Clone() const;

 private:
  friend class MemoryFile;
  friend class MemoryLock;

  struct PendingWrite {
    uint64_t offset = 0;
    std::string bytes;
    bool truncate = false;  // to `offset`
  };
  // What a name stands for.
  struct Inode {
    std::string seen;
    std::string durable;
    std::vector<PendingWrite> pending;  // from durable to seen
  };
  using InodePtr = std::shared_ptr<Inode>;
  // A change of a directory that is not yet durable.
  struct PendingName {
    enum class Kind : uint8_t { kLink, kUnlink, kRename } kind = Kind::kLink;
    std::string name;
    std::string to;
    InodePtr inode;
  };
  struct Directory {
    std::map<std::string, InodePtr> seen;
    std::map<std::string, InodePtr> durable;
    std::vector<PendingName> pending;
    bool kept = true;  // its own name is durable
  };

  absl::Status Enter(Operation operation, std::string_view path);
  absl::StatusOr<std::pair<Directory*, std::string>> Find(std::string_view path);
  const Inode* FindInode(std::string_view path) const;
  [[nodiscard]] uint64_t UsedBytes() const;
  static void Apply(const PendingWrite& write, std::string* content);
  // Of each sector its first writes happened, as many as `kept` says; and of the sizes
  // `sizes_kept`.
  static void ApplySectors(const std::vector<PendingWrite>& writes, size_t sizes_kept,
                           absl::FunctionRef<size_t(uint64_t sector)> kept, std::string* content);
  static void ApplyTorn(const std::vector<PendingWrite>& writes, Prng& prng, std::string* content);
  static void Apply(const PendingName& change, std::map<std::string, InodePtr>* names);
  void Restarted();
  // What becomes of what was not synced.
  struct Fate {
    absl::FunctionRef<bool()> keeps_directory;
    absl::FunctionRef<size_t(size_t changes)> keeps_names;
    absl::FunctionRef<void(const std::vector<PendingWrite>& writes, std::string* content)> apply;
  };
  void CrashWith(const Fate& fate);
  void CrashKeepingNames(
      absl::FunctionRef<void(const std::vector<PendingWrite>&, std::string*)> apply);

  const std::string name_;
  // Guards all below but the hook itself. Recursive, because the hook may look at the disk.
  mutable std::recursive_mutex mutex_;
  std::map<std::string, Directory, std::less<>> directories_{{"", Directory()}};
  std::set<std::string, std::less<>> locked_;
  uint64_t epoch_ = 0;  // counts restarts; a file of an earlier one is useless
  uint64_t capacity_bytes_ = UINT64_MAX;
  Hook hook_;
};

}  // namespace conclave::env
