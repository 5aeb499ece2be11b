#include "conclave/server/snapshot/reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/status.h"
#include "conclave/server/snapshot/sha256.h"

namespace conclave::snapshot {
namespace {

std::string PathOf(std::string_view name) { return Concat(kDirectory, "/", name); }

}  // namespace

Reader::Reader(std::string name, std::unique_ptr<env::File> file)
    : name_(std::move(name)), file_(std::move(file)), hash_(std::make_unique<Sha256>()) {}

Reader::~Reader() = default;

absl::Status Reader::Damaged(std::string_view what) const {
  return absl::DataLossError(Concat("snapshot ", where_, " is damaged: ", what));
}

absl::Status Reader::ReadExactly(size_t bytes, char* out) {
  CONCLAVE_ASSIGN_OR_RETURN(const size_t read, file_->Read(offset_, {out, bytes}));
  if (read != bytes) return Damaged("it is cut off");
  offset_ += bytes;
  return absl::OkStatus();
}

absl::Status Reader::ReadHeader() {
  std::string bytes(kPrefixBytes, '\0');
  CONCLAVE_RETURN_IF_ERROR(ReadExactly(bytes.size(), bytes.data()));
  const auto size = HeaderBytes(bytes);
  if (!size.ok()) return Damaged(std::string(size.status().message()));
  bytes.resize(*size);
  CONCLAVE_RETURN_IF_ERROR(ReadExactly(*size - kPrefixBytes, bytes.data() + kPrefixBytes));
  auto header = DecodeHeader(bytes);
  if (absl::IsDataLoss(header.status())) return Damaged(std::string(header.status().message()));
  if (!header.ok()) {
    return absl::FailedPreconditionError(
        Concat("snapshot ", where_, ": ", header.status().message()));
  }
  header_ = *std::move(header);
  hash_->Append(bytes);
  seed_ = HeaderCrc(bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Reader>> Reader::Open(env::Disk& disk, std::string_view name,
                                                     uint64_t cluster_id) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk.Open(PathOf(name), env::OpenMode::kRead));
  std::unique_ptr<Reader> reader(new Reader(std::string(name), std::move(file)));
  reader->where_ = Concat(disk.Describe(), "/", PathOf(name));
  CONCLAVE_RETURN_IF_ERROR(reader->ReadHeader());
  const Header& header = reader->header_;
  if (header.cluster_id != cluster_id) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "snapshot %s belongs to cluster %x, but this server is started as a member of cluster %x",
        reader->where_, header.cluster_id, cluster_id));
  }
  if (name.ends_with(kUnfinishedSuffix)) name.remove_suffix(kUnfinishedSuffix.size());
  if (FileName(header.meta) != name) {
    return reader->Damaged("its name is not the one it was given");
  }
  return reader;
}

absl::StatusOr<std::optional<Bytes>> Reader::Next() {
  CONCLAVE_CHECK(!finished_, "a read behind the end of a snapshot");
  char head[kChunkHeadBytes];
  CONCLAVE_RETURN_IF_ERROR(ReadExactly(sizeof(head), head));
  uint32_t length;
  uint32_t crc;
  std::memcpy(&length, head, sizeof(length));
  std::memcpy(&crc, head + sizeof(length), sizeof(crc));
  if (length == 0) {
    offset_ -= sizeof(head);
    CONCLAVE_RETURN_IF_ERROR(ReadTrailer());
    finished_ = true;
    return std::nullopt;
  }
  if (length > kChunkBytesMax) return Damaged("a chunk's length is impossible");
  char* out = nullptr;
  Bytes bytes = Bytes::Uninitialized(length, &out);
  CONCLAVE_RETURN_IF_ERROR(ReadExactly(length, out));
  if (ChunkCrc(seed_, chunks_, bytes.view()) != crc) {
    return Damaged(Concat("the checksum of chunk ", chunks_, " is wrong"));
  }
  hash_->Append(bytes.view());
  body_bytes_ += length;
  ++chunks_;
  return bytes;
}

absl::Status Reader::ReadTrailer() {
  std::string bytes(kTrailerBytes, '\0');
  CONCLAVE_RETURN_IF_ERROR(ReadExactly(bytes.size(), bytes.data()));
  const auto trailer = DecodeTrailer(seed_, bytes);
  if (!trailer.ok()) return Damaged(std::string(trailer.status().message()));
  if (trailer->chunks != chunks_ || trailer->body_bytes != body_bytes_) {
    return Damaged("chunks are missing");
  }
  if (trailer->hash != hash_->Finish()) return Damaged("the hash of the whole is wrong");
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file_->Size());
  if (size != offset_) return Damaged("something stands behind its end");
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Reader::Verify() {
  while (true) {
    CONCLAVE_ASSIGN_OR_RETURN(const auto chunk, Next());
    if (!chunk.has_value()) return body_bytes_;
  }
}

absl::StatusOr<std::vector<std::string>> ListNewestFirst(env::Disk& disk) {
  auto names = disk.List(kDirectory);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  CONCLAVE_RETURN_IF_ERROR(names.status());
  std::erase_if(*names, [](const std::string& name) { return !IsFileName(name); });
  // The names start with the index in hexadecimal digits of equal number.
  std::reverse(names->begin(), names->end());
  return names;
}

absl::StatusOr<std::vector<std::string>> ListUnfinished(env::Disk& disk) {
  auto names = disk.List(kDirectory);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  CONCLAVE_RETURN_IF_ERROR(names.status());
  std::erase_if(*names, [](const std::string& name) { return !name.ends_with(kUnfinishedSuffix); });
  std::reverse(names->begin(), names->end());
  return names;
}

absl::Status RemoveUnfinished(env::Disk& disk, std::span<const std::string> names) {
  for (const std::string& name : names) CONCLAVE_RETURN_IF_ERROR(disk.Remove(PathOf(name)));
  return absl::OkStatus();
}

absl::StatusOr<Newest> OpenNewest(env::Disk& disk, uint64_t cluster_id) {
  CONCLAVE_RETURN_IF_ERROR(disk.CreateDirectory(kDirectory));
  CONCLAVE_RETURN_IF_ERROR(disk.SyncDirectory(""));
  // A process that died as it gave a snapshot its name may have left that unsynced.
  CONCLAVE_RETURN_IF_ERROR(disk.SyncDirectory(kDirectory));
  CONCLAVE_ASSIGN_OR_RETURN(const auto names, ListNewestFirst(disk));
  Newest newest;
  for (const std::string& name : names) {
    auto reader = Reader::Open(disk, name, cluster_id);
    absl::Status status = reader.status();
    if (status.ok()) status = (*reader)->Verify().status();
    if (status.ok()) {
      CONCLAVE_ASSIGN_OR_RETURN(newest.reader, Reader::Open(disk, name, cluster_id));
      return newest;
    }
    if (!absl::IsDataLoss(status)) return status;
    newest.skipped.push_back(std::move(status));
    newest.damaged.push_back(name);
  }
  return newest;
}

absl::Status CheckOwner(env::Disk& disk, uint64_t cluster_id) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto names, ListNewestFirst(disk));
  for (const std::string& name : names) {
    const absl::Status status = Reader::Open(disk, name, cluster_id).status();
    if (absl::IsFailedPrecondition(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status SetAside(env::Disk& disk, std::span<const std::string> names) {
  if (names.empty()) return absl::OkStatus();
  for (const std::string& name : names) {
    CONCLAVE_RETURN_IF_ERROR(disk.Rename(PathOf(name), Concat(PathOf(name), kDamagedSuffix)));
  }
  return disk.SyncDirectory(kDirectory);
}

absl::Status KeepAsEvidence(env::Disk& disk) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto all, disk.List(kDirectory));
  for (const std::string& name : all) {
    if (name.ends_with(kEvidenceSuffix) || name.ends_with(kUnfinishedSuffix)) {
      CONCLAVE_RETURN_IF_ERROR(disk.Remove(PathOf(name)));
    }
  }
  CONCLAVE_ASSIGN_OR_RETURN(const auto names, ListNewestFirst(disk));
  for (const std::string& name : names) {
    CONCLAVE_RETURN_IF_ERROR(disk.Rename(PathOf(name), Concat(PathOf(name), kEvidenceSuffix)));
  }
  return disk.SyncDirectory(kDirectory);
}

absl::Status Purge(env::Disk& disk, size_t keep) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto all, disk.List(kDirectory));
  CONCLAVE_ASSIGN_OR_RETURN(std::vector<std::string> old, ListNewestFirst(disk));
  old.erase(old.begin(), old.begin() + static_cast<ptrdiff_t>(std::min(keep, old.size())));
  for (const std::string& name : all) {
    if (name.ends_with(kDamagedSuffix)) old.push_back(name);
  }
  if (old.empty()) return absl::OkStatus();
  for (const std::string& name : old) CONCLAVE_RETURN_IF_ERROR(disk.Remove(PathOf(name)));
  return disk.SyncDirectory(kDirectory);
}

}  // namespace conclave::snapshot
