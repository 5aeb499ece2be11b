#include "conclave/server/app/snapshot_file.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/server/snapshot/sha256.h"

namespace conclave::app {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kReadBytes = 1 << 20;

// As Go prints a byte slice: "[18 52 86]".
std::string Decimal(std::string_view bytes) {
  std::string text = "[";
  for (const char byte : bytes) {
    absl::StrAppend(&text, text.size() > 1 ? " " : "", static_cast<unsigned char>(byte));
  }
  return text + "]";
}

}  // namespace

SnapshotFile::SnapshotFile(std::string path, std::ifstream stream, uint64_t size)
    : path_(std::move(path)),
      stream_(std::move(stream)),
      has_hash_(size % kSectorBytes == snapshot::kHashBytes),
      size_(has_hash_ ? size - snapshot::kHashBytes : size) {}

absl::StatusOr<std::unique_ptr<SnapshotFile>> SnapshotFile::Open(const std::string& path) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", error.message()));
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::PermissionDeniedError(absl::StrCat("cannot read ", path));
  return std::unique_ptr<SnapshotFile>(new SnapshotFile(path, std::move(stream), size));
}

absl::Status SnapshotFile::Read(uint64_t offset, std::span<char> out) {
  stream_.clear();
  stream_.seekg(static_cast<std::streamoff>(offset));
  stream_.read(out.data(), static_cast<std::streamsize>(out.size()));
  if (static_cast<size_t>(stream_.gcount()) == out.size()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot read ", path_, " at ", offset));
}

absl::Status SnapshotFile::CheckHash() {
  if (!has_hash_) {
    return absl::DataLossError("snapshot missing hash but --skip-hash-check=false");
  }
  snapshot::Sha256 sha256;
  std::vector<char> buffer(kReadBytes);
  for (uint64_t offset = 0; offset < size_; offset += buffer.size()) {
    const std::span<char> part(buffer.data(), std::min<uint64_t>(buffer.size(), size_ - offset));
    CONCLAVE_RETURN_IF_ERROR(Read(offset, part));
    sha256.Append(std::string_view(part.data(), part.size()));
  }
  const snapshot::Hash is = sha256.Finish();
  snapshot::Hash said{};
  CONCLAVE_RETURN_IF_ERROR(Read(size_, said));
  if (is == said) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("expected sha256 ", Decimal({said.data(), said.size()}),
                                          ", got ", Decimal({is.data(), is.size()})));
}

}  // namespace conclave::app
