#include "conclave/client/snapshot_part.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"

namespace conclave {
namespace {

constexpr size_t kHashBytes = 32;
constexpr uint64_t kSectorBytes = 512;  // a database is a whole number of them
constexpr mode_t kFileMode = 0600;      // it holds all keys, and users' passwords as hashes

absl::Status SyncDirectoryOf(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || fsync(directory) != 0) {
    const std::string reason = std::system_category().message(errno);
    if (directory >= 0) close(directory);
    return absl::UnavailableError(absl::StrCat("cannot sync ", folder.string(), ": ", reason));
  }
  close(directory);
  return absl::OkStatus();
}

}  // namespace

struct SnapshotPart::Hash {
  Hash() : context(EVP_MD_CTX_new()) {
    CONCLAVE_CHECK(context != nullptr);
    CONCLAVE_CHECK(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1);
  }
  ~Hash() { EVP_MD_CTX_free(context); }
  void Append(std::string_view bytes) {
    CONCLAVE_CHECK(EVP_DigestUpdate(context, bytes.data(), bytes.size()) == 1);
  }
  std::string Finish() {
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    CONCLAVE_CHECK(EVP_DigestFinal_ex(context, hash, &size) == 1);
    return std::string(reinterpret_cast<const char*>(hash), size);
  }
  EVP_MD_CTX* const context;
};

absl::StatusOr<std::unique_ptr<SnapshotPart>> SnapshotPart::Create(const std::string& path) {
  const std::string part_path = path + ".part";
  const int file = open(part_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
  if (file < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", part_path, ": ", std::system_category().message(errno)));
  }
  return std::unique_ptr<SnapshotPart>(new SnapshotPart(path, file));
}

SnapshotPart::SnapshotPart(std::string path, int file)
    : path_(std::move(path)),
      part_path_(path_ + ".part"),
      file_(file),
      hash_(std::make_unique<Hash>()) {}

SnapshotPart::~SnapshotPart() {
  if (file_ >= 0) close(file_);
  if (!finished_) unlink(part_path_.c_str());
}

absl::Status SnapshotPart::Failed(std::string_view what) const {
  return absl::UnavailableError(absl::StrCat("cannot ", std::string(what), " ", part_path_, ": ",
                                             std::system_category().message(errno)));
}

absl::Status SnapshotPart::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SnapshotPart::Append(std::string_view bytes) {
  CONCLAVE_RETURN_IF_ERROR(Write(bytes));
  bytes_ += bytes.size();
  held_back_.append(bytes);
  if (held_back_.size() <= kHashBytes) return absl::OkStatus();
  const size_t certain = held_back_.size() - kHashBytes;
  hash_->Append(std::string_view(held_back_).substr(0, certain));
  held_back_.erase(0, certain);
  return absl::OkStatus();
}

absl::Status SnapshotPart::Finish() {
  if (bytes_ % kSectorBytes != kHashBytes) {
    return absl::DataLossError(
        absl::StrCat("the snapshot ends without its hash, after ", bytes_, " bytes"));
  }
  if (hash_->Finish() != held_back_) {
    return absl::DataLossError("the snapshot is not what the server has sent: its hash differs");
  }
  if (fsync(file_) != 0) return Failed("sync");
  if (close(std::exchange(file_, -1)) != 0) return Failed("close");
  if (rename(part_path_.c_str(), path_.c_str()) != 0) return Failed("rename");
  finished_ = true;
  return SyncDirectoryOf(path_);
}

}  // namespace conclave
