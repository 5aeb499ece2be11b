#include "conclave/server/env/memory/memory_disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/status.h"

namespace conclave::env {

class MemoryFile : public File {
 public:
  MemoryFile(MemoryDisk* disk, std::string path, MemoryDisk::InodePtr inode)
      : disk_(disk), path_(std::move(path)), inode_(std::move(inode)), epoch_(disk->epoch_) {}

  absl::Status Write(uint64_t offset, std::span<const std::string_view> pieces) override {
    std::lock_guard lock(disk_->mutex_);
    CONCLAVE_RETURN_IF_ERROR(Enter(MemoryDisk::Operation::kWrite));
    MemoryDisk::PendingWrite write{.offset = offset};
    for (std::string_view piece : pieces) write.bytes.append(piece);
    return Change(std::move(write));
  }

  absl::StatusOr<size_t> Read(uint64_t offset, std::span<char> out) override {
    std::lock_guard lock(disk_->mutex_);
    CONCLAVE_RETURN_IF_ERROR(Enter(MemoryDisk::Operation::kRead));
    const std::string& content = inode_->seen;
    if (offset >= content.size()) return 0;
    const size_t size = std::min<size_t>(out.size(), content.size() - offset);
    if (size > 0) std::memcpy(out.data(), content.data() + offset, size);
    return size;
  }

  absl::Status Sync() override {
    std::lock_guard lock(disk_->mutex_);
    if (absl::Status status = Enter(MemoryDisk::Operation::kSync); !status.ok()) {
      // As on Linux: the pages that could not be written count as clean from now on. Reads show
      // them, and no later sync writes them. Unless the hook has ended the process.
      if (epoch_ == disk_->epoch_) inode_->pending.clear();
      return status;
    }
    for (const auto& write : inode_->pending) MemoryDisk::Apply(write, &inode_->durable);
    inode_->pending.clear();
    return absl::OkStatus();
  }

  absl::Status Preallocate(uint64_t offset, uint64_t bytes) override {
    std::lock_guard lock(disk_->mutex_);
    CONCLAVE_RETURN_IF_ERROR(Enter(MemoryDisk::Operation::kPreallocate));
    return Change({.offset = offset, .bytes = std::string(bytes, '\0')});
  }

  absl::Status Truncate(uint64_t size) override {
    std::lock_guard lock(disk_->mutex_);
    CONCLAVE_RETURN_IF_ERROR(Enter(MemoryDisk::Operation::kTruncate));
    return Change({.offset = size, .truncate = true});
  }

  absl::StatusOr<uint64_t> Size() override {
    std::lock_guard lock(disk_->mutex_);
    CONCLAVE_RETURN_IF_ERROR(Enter(MemoryDisk::Operation::kRead));
    return inode_->seen.size();
  }

 private:
  absl::Status Enter(MemoryDisk::Operation operation) {
    if (epoch_ != disk_->epoch_) {
      return absl::InternalError(Concat(path_, ": opened before the machine crashed"));
    }
    return disk_->Enter(operation, path_);
  }

  absl::Status Change(MemoryDisk::PendingWrite write) {
    const uint64_t end = write.offset + write.bytes.size();
    if (end > inode_->seen.size() &&
        disk_->UsedBytes() + (end - inode_->seen.size()) > disk_->capacity_bytes_) {
      return absl::ResourceExhaustedError(Concat(path_, ": no space left on device"));
    }
    MemoryDisk::Apply(write, &inode_->seen);
    inode_->pending.push_back(std::move(write));
    return absl::OkStatus();
  }

  MemoryDisk* const disk_;
  const std::string path_;
  const MemoryDisk::InodePtr inode_;
  const uint64_t epoch_;
};

class MemoryLock : public Lock {
 public:
  MemoryLock(MemoryDisk* disk, std::string path)
      : disk_(disk), path_(std::move(path)), epoch_(disk->epoch_) {}
  ~MemoryLock() override {
    std::lock_guard lock(disk_->mutex_);
    if (epoch_ == disk_->epoch_) disk_->locked_.erase(path_);
  }

 private:
  MemoryDisk* const disk_;
  const std::string path_;
  const uint64_t epoch_;
};

MemoryDisk::~MemoryDisk() = default;

absl::Status MemoryDisk::Enter(Operation operation, std::string_view path) {
  return hook_ ? hook_(operation, path) : absl::OkStatus();
}

absl::StatusOr<std::pair<MemoryDisk::Directory*, std::string>> MemoryDisk::Find(
    std::string_view path) {
  const size_t slash = path.rfind('/');
  const std::string_view parent = slash == std::string_view::npos ? "" : path.substr(0, slash);
  const auto found = directories_.find(parent);
  if (found == directories_.end()) {
    return absl::NotFoundError(Concat(name_, "/", parent, ": no such directory"));
  }
  return std::pair(&found->second, std::string(path.substr(slash + 1)));
}

const MemoryDisk::Inode* MemoryDisk::FindInode(std::string_view path) const {
  const auto place = const_cast<MemoryDisk*>(this)->Find(path);
  if (!place.ok()) return nullptr;
  const auto inode = place->first->seen.find(place->second);
  return inode == place->first->seen.end() ? nullptr : inode->second.get();
}

uint64_t MemoryDisk::UsedBytes() const {
  uint64_t bytes = 0;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, inode] : directory.seen) bytes += inode->seen.size();
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<File>> MemoryDisk::Open(std::string_view path, OpenMode mode) {
  std::lock_guard lock(mutex_);
  CONCLAVE_ASSIGN_OR_RETURN(auto place, Find(path));
  auto& [directory, name] = place;
  auto inode = directory->seen.find(name);
  const bool may_create = mode == OpenMode::kCreate || mode == OpenMode::kCreateOrReset;
  if (inode == directory->seen.end()) {
    if (!may_create) return absl::NotFoundError(Concat(path, ": no such file"));
    CONCLAVE_RETURN_IF_ERROR(Enter(Operation::kOpenNew, path));
    inode = directory->seen.emplace(name, std::make_shared<Inode>()).first;
    directory->pending.push_back(
        {.kind = PendingName::Kind::kLink, .name = name, .to = "", .inode = inode->second});
  } else if (mode == OpenMode::kCreate) {
    return absl::AlreadyExistsError(Concat(path, ": exists"));
  }
  auto file = std::make_unique<MemoryFile>(this, std::string(path), inode->second);
  if (mode == OpenMode::kCreateOrReset) CONCLAVE_RETURN_IF_ERROR(file->Truncate(0));
  return file;
}

absl::Status MemoryDisk::CreateDirectory(std::string_view path) {
  std::lock_guard lock(mutex_);
  CONCLAVE_ASSIGN_OR_RETURN(auto place, Find(path));
  CONCLAVE_CHECK(!place.first->seen.contains(place.second), path, " is a file");
  directories_.try_emplace(std::string(path), Directory{.kept = false});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MemoryDisk::List(std::string_view path) {
  std::lock_guard lock(mutex_);
  const auto found = directories_.find(path);
  if (found == directories_.end()) {
    return absl::NotFoundError(Concat(path, ": no such directory"));
  }
  std::vector<std::string> names;
  for (const auto& [name, inode] : found->second.seen) names.push_back(name);
  const std::string prefix = path.empty() ? "" : Concat(path, "/");
  for (const auto& [name, directory] : directories_) {
    if (name.size() > prefix.size() && name.compare(0, prefix.size(), prefix) == 0 &&
        name.find('/', prefix.size()) == std::string::npos) {
      names.push_back(name.substr(prefix.size()));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MemoryDisk::Rename(std::string_view from, std::string_view to) {
  std::lock_guard lock(mutex_);
  CONCLAVE_ASSIGN_OR_RETURN(auto source, Find(from));
  CONCLAVE_ASSIGN_OR_RETURN(auto target, Find(to));
  CONCLAVE_CHECK(source.first == target.first, "rename between directories: ", from, " to ", to);
  if (!source.first->seen.contains(source.second)) {
    return absl::NotFoundError(Concat(from, ": no such file"));
  }
  CONCLAVE_RETURN_IF_ERROR(Enter(Operation::kRename, from));
  PendingName change{.kind = PendingName::Kind::kRename,
                     .name = source.second,
                     .to = target.second,
                     .inode = nullptr};
  Apply(change, &source.first->seen);
  source.first->pending.push_back(std::move(change));
  return absl::OkStatus();
}

absl::Status MemoryDisk::Remove(std::string_view path) {
  std::lock_guard lock(mutex_);
  CONCLAVE_ASSIGN_OR_RETURN(auto place, Find(path));
  if (!place.first->seen.contains(place.second)) {
    return absl::NotFoundError(Concat(path, ": no such file"));
  }
  CONCLAVE_RETURN_IF_ERROR(Enter(Operation::kRemove, path));
  PendingName change{
      .kind = PendingName::Kind::kUnlink, .name = place.second, .to = "", .inode = nullptr};
  Apply(change, &place.first->seen);
  place.first->pending.push_back(std::move(change));
  return absl::OkStatus();
}

absl::Status MemoryDisk::SyncDirectory(std::string_view path) {
  std::lock_guard lock(mutex_);
  const auto found = directories_.find(path);
  if (found == directories_.end()) {
    return absl::NotFoundError(Concat(path, ": no such directory"));
  }
  CONCLAVE_RETURN_IF_ERROR(Enter(Operation::kSyncDirectory, path));
  for (const PendingName& change : found->second.pending) Apply(change, &found->second.durable);
  found->second.pending.clear();
  for (auto& [name, directory] : directories_) {
    const size_t slash = name.rfind('/');
    if ((slash == std::string::npos ? "" : name.substr(0, slash)) == path) directory.kept = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Lock>> MemoryDisk::LockFile(std::string_view path) {
  std::lock_guard lock(mutex_);
  CONCLAVE_RETURN_IF_ERROR(Enter(Operation::kLock, path));
  if (FindInode(path) == nullptr) {
    CONCLAVE_RETURN_IF_ERROR(Open(path, OpenMode::kCreate).status());
  }
  if (!locked_.insert(std::string(path)).second) {
    return absl::FailedPreconditionError(Concat(path, " is locked by another process"));
  }
  return std::make_unique<MemoryLock>(this, std::string(path));
}

absl::StatusOr<Space> MemoryDisk::FreeSpace() {
  std::lock_guard lock(mutex_);
  const uint64_t used = UsedBytes();
  return Space{.total_bytes = capacity_bytes_,
               .free_bytes = capacity_bytes_ > used ? capacity_bytes_ - used : 0};
}

void MemoryDisk::Apply(const PendingWrite& write, std::string* content) {
  if (write.truncate) {
    content->resize(write.offset);
    return;
  }
  if (content->size() < write.offset + write.bytes.size()) {
    content->resize(write.offset + write.bytes.size());
  }
  std::memcpy(content->data() + write.offset, write.bytes.data(), write.bytes.size());
}

void MemoryDisk::Apply(const PendingName& change, std::map<std::string, InodePtr>* names) {
  switch (change.kind) {
    case PendingName::Kind::kLink:
      (*names)[change.name] = change.inode;
      return;
    case PendingName::Kind::kUnlink:
      names->erase(change.name);
      return;
    case PendingName::Kind::kRename:
      (*names)[change.to] = (*names)[change.name];
      names->erase(change.name);
      return;
  }
}

// Sectors are independent of each other, and the size goes its own way too.
void MemoryDisk::ApplySectors(const std::vector<PendingWrite>& writes, size_t sizes_kept,
                              absl::FunctionRef<size_t(uint64_t)> writes_kept,
                              std::string* content) {
  size_t end = content->size();
  for (const PendingWrite& write : writes) end = std::max(end, write.offset + write.bytes.size());
  uint64_t size = content->size();
  for (size_t i = 0; i < sizes_kept; ++i) {
    size = writes[i].truncate ? writes[i].offset
                              : std::max<uint64_t>(size, writes[i].offset + writes[i].bytes.size());
  }
  content->resize(end);
  std::set<uint64_t> sectors;
  for (const PendingWrite& write : writes) {
    const uint64_t last = write.truncate ? end : write.offset + write.bytes.size();
    for (uint64_t at = write.offset / kSectorBytes; at * kSectorBytes < last; ++at) {
      sectors.insert(at);
    }
  }
  for (uint64_t sector : sectors) {
    const uint64_t begin = sector * kSectorBytes;
    const size_t kept = writes_kept(sector);
    for (size_t i = 0; i < kept; ++i) {
      const uint64_t from = std::max(begin, writes[i].offset);
      const uint64_t write_end =
          writes[i].truncate ? end : writes[i].offset + writes[i].bytes.size();
      const uint64_t to = std::min(begin + kSectorBytes, write_end);
      if (from >= to) continue;
      if (writes[i].truncate) {
        std::memset(content->data() + from, 0, to - from);
      } else {
        std::memcpy(content->data() + from, writes[i].bytes.data() + (from - writes[i].offset),
                    to - from);
      }
    }
  }
  content->resize(size);
}

// Each sector ends up in a state that it passed through: some first writes of it happened, the
// later ones did not.
void MemoryDisk::ApplyTorn(const std::vector<PendingWrite>& writes, Prng& prng,
                           std::string* content) {
  if (writes.empty()) return;
  const uint64_t eagerness = prng.Below(5);  // 0: nothing is kept, 4: everything
  const auto writes_kept = [&]() -> size_t {
    if (eagerness == 0) return 0;
    if (eagerness == 4 || prng.Chance(eagerness, 4)) return writes.size();
    return prng.Below(writes.size() + 1);
  };
  const size_t sizes_kept = writes_kept();
  ApplySectors(
      writes, sizes_kept, [&](uint64_t) { return writes_kept(); }, content);
}

void MemoryDisk::Restarted() {
  ++epoch_;
  locked_.clear();
}

void MemoryDisk::set_capacity_bytes(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_bytes_ = bytes;
}

void MemoryDisk::KillProcess() {
  std::lock_guard lock(mutex_);
  Restarted();
}

void MemoryDisk::CrashWith(const Fate& fate) {
  std::lock_guard lock(mutex_);
  Restarted();
  for (auto at = directories_.begin(); at != directories_.end();) {
    Directory& directory = at->second;
    if (!directory.kept && !fate.keeps_directory()) {
      // And all that stands below it.
      const std::string prefix = at->first + "/";
      at = directories_.erase(at);
      while (at != directories_.end() && at->first.compare(0, prefix.size(), prefix) == 0) {
        at = directories_.erase(at);
      }
      continue;
    }
    directory.kept = true;
    const size_t names_kept = fate.keeps_names(directory.pending.size());
    for (size_t i = 0; i < names_kept; ++i) Apply(directory.pending[i], &directory.durable);
    directory.pending.clear();
    directory.seen = directory.durable;
    for (auto& [name, inode] : directory.seen) {
      fate.apply(inode->pending, &inode->durable);
      inode->pending.clear();
      inode->seen = inode->durable;
    }
    ++at;
  }
}

void MemoryDisk::Crash(Prng& prng) {
  CrashWith({.keeps_directory = [&] { return !prng.Chance(1, 2); },
             .keeps_names = [&](size_t changes) { return prng.Below(changes + 1); },
             .apply = [&](const std::vector<PendingWrite>& writes,
                          std::string* content) { ApplyTorn(writes, prng, content); }});
}

void MemoryDisk::CrashLosingAll() {
  CrashWith({.keeps_directory = [] { return false; },
             .keeps_names = [](size_t) { return size_t{0}; },
             .apply = [](const std::vector<PendingWrite>&, std::string*) {}});
}

void MemoryDisk::CrashKeepingNames(
    absl::FunctionRef<void(const std::vector<PendingWrite>&, std::string*)> apply) {
  CrashWith({.keeps_directory = [] { return true; },
             .keeps_names = [](size_t changes) { return changes; },
             .apply =
                 [&](const std::vector<PendingWrite>& writes, std::string* content) {
                   if (!writes.empty()) apply(writes, content);
                 }});
}

void MemoryDisk::CrashTearing(uint64_t granule_bytes, Prng& prng) {
  CrashKeepingNames([&](const std::vector<PendingWrite>& writes, std::string* content) {
    const PendingWrite& last = writes.back();
    const size_t all = writes.size();
    const uint64_t first = last.offset / granule_bytes;
    const uint64_t end = (last.offset + last.bytes.size() + granule_bytes - 1) / granule_bytes;
    const uint64_t cut = (first + prng.Below(std::max<uint64_t>(end - first, 1))) * granule_bytes;
    ApplySectors(
        writes, prng.Chance(1, 2) ? all : all - 1,
        [&](uint64_t sector) { return sector * kSectorBytes < cut ? all : all - 1; }, content);
  });
}

void MemoryDisk::CrashReordering(Prng& prng) {
  CrashKeepingNames([&](const std::vector<PendingWrite>& writes, std::string* content) {
    uint64_t first = UINT64_MAX;
    for (const PendingWrite& write : writes) first = std::min(first, write.offset / kSectorBytes);
    const auto kept = [&](uint64_t sector) -> size_t {
      if (sector == first) return 0;
      return prng.Chance(1, 2) ? writes.size() : prng.Below(writes.size() + 1);
    };
    ApplySectors(writes, writes.size(), kept, content);
  });
}

std::string MemoryDisk::Content(std::string_view path) const {
  std::lock_guard lock(mutex_);
  const Inode* inode = FindInode(path);
  CONCLAVE_CHECK(inode != nullptr, path);
  return inode->seen;
}

void MemoryDisk::SetContent(std::string_view path, std::string_view content) {
  std::lock_guard lock(mutex_);
  const auto place = Find(path);
  CONCLAVE_CHECK(place.ok(), path);
  InodePtr& inode = place->first->seen[place->second];
  if (inode == nullptr) inode = std::make_shared<Inode>();
  place->first->durable[place->second] = inode;
  inode->pending.clear();
  inode->seen = content;
  inode->durable = content;
}

void MemoryDisk::Overwrite(std::string_view path, uint64_t offset, std::string_view bytes) {
  std::lock_guard lock(mutex_);
  const auto place = Find(path);
  CONCLAVE_CHECK(place.ok(), path);
  const auto inode = place->first->seen.find(place->second);
  CONCLAVE_CHECK(inode != place->first->seen.end(), path);
  std::string& seen = inode->second->seen;
  CONCLAVE_CHECK(offset + bytes.size() <= seen.size(), path, " ends before ", offset);
  seen.replace(offset, bytes.size(), bytes);
  std::string& durable = inode->second->durable;
  if (offset >= durable.size()) return;
  const size_t kept = std::min<size_t>(bytes.size(), durable.size() - offset);
  durable.replace(offset, kept, bytes.substr(0, kept));
}

bool MemoryDisk::Exists(std::string_view path) const {
  std::lock_guard lock(mutex_);
  return FindInode(path) != nullptr;
}

std::vector<std::string> MemoryDisk::Files() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> files;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, inode] : directory.seen) {
      files.push_back(path.empty() ? name : Concat(path, "/", name));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::unique_ptr<MemoryDisk> MemoryDisk::Clone() const {
  std::lock_guard lock(mutex_);
  auto clone = std::make_unique<MemoryDisk>(name_);
  for (const auto& [path, directory] : directories_) {
    Directory& copy = clone->directories_[path];
    for (const auto& [name, inode] : directory.seen) {
      auto inode_copy = std::make_shared<Inode>();
      inode_copy->seen = inode->seen;
      inode_copy->durable = inode->seen;
      copy.seen[name] = inode_copy;
      copy.durable[name] = inode_copy;
    }
  }
  return clone;
}

}  // namespace conclave::env
