#include "conclave/server/snapshot/writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/base/status.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/sha256.h"

namespace conclave::snapshot {
namespace {

// Written bytes are synced every so often, so that the last sync is short and the log's own syncs
// do not wait behind hundreds of megabytes.
constexpr uint64_t kUnsyncedBytesMax = uint64_t{8} << 20;

}  // namespace

Writer::Writer(env::Disk* disk, const Header& header)
    : disk_(disk),
      header_(header),
      path_(Concat(kDirectory, "/", FileName(header.meta), kUnfinishedSuffix)),
      hash_(std::make_unique<Sha256>()) {}

absl::StatusOr<std::unique_ptr<Writer>> Writer::Create(env::Disk& disk, const Header& header) {
  CONCLAVE_RETURN_IF_ERROR(disk.CreateDirectory(kDirectory));
  CONCLAVE_RETURN_IF_ERROR(disk.SyncDirectory(""));
  CONCLAVE_ASSIGN_OR_RETURN(const auto unfinished, ListUnfinished(disk));
  CONCLAVE_RETURN_IF_ERROR(RemoveUnfinished(disk, unfinished));
  std::unique_ptr<Writer> writer(new Writer(&disk, header));
  CONCLAVE_ASSIGN_OR_RETURN(writer->file_, disk.Open(writer->path_, env::OpenMode::kCreateOrReset));
  const std::string bytes = EncodeHeader(header);
  CONCLAVE_RETURN_IF_ERROR(writer->file_->Write(0, bytes));
  writer->hash_->Append(bytes);
  writer->seed_ = HeaderCrc(bytes);
  writer->offset_ = bytes.size();
  return writer;
}

Writer::~Writer() {
  if (finished_ || left_ || file_ == nullptr) return;
  file_.reset();
  // If that fails too, the next Writer removes it.
  static_cast<void>(disk_->Remove(path_));
}

absl::Status Writer::WriteChunk(std::string_view bytes) {
  std::array<char, kChunkHeadBytes> head;
  const auto length = static_cast<uint32_t>(bytes.size());
  const uint32_t crc = ChunkCrc(seed_, chunks_, bytes);
  std::memcpy(head.data(), &length, sizeof(length));
  std::memcpy(head.data() + sizeof(length), &crc, sizeof(crc));
  const std::string_view pieces[] = {{head.data(), head.size()}, bytes};
  CONCLAVE_RETURN_IF_ERROR(file_->Write(offset_, pieces));
  hash_->Append(bytes);
  offset_ += head.size() + bytes.size();
  body_bytes_ += bytes.size();
  unsynced_bytes_ += bytes.size();
  ++chunks_;
  if (unsynced_bytes_ < kUnsyncedBytesMax) return absl::OkStatus();
  unsynced_bytes_ = 0;
  return file_->Sync();
}

absl::Status Writer::Append(std::string_view bytes) {
  CONCLAVE_CHECK(!finished_, "bytes after the end of a snapshot");
  while (!bytes.empty()) {
    const size_t size = bytes.size() < 2 * kChunkBytes ? bytes.size() : kChunkBytes;
    CONCLAVE_RETURN_IF_ERROR(WriteChunk(bytes.substr(0, size)));
    bytes.remove_prefix(size);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Writer::Finish() {
  CONCLAVE_CHECK(!finished_, "a snapshot is finished twice");
  const std::string trailer =
      EncodeTrailer(seed_, {.chunks = chunks_, .body_bytes = body_bytes_, .hash = hash_->Finish()});
  CONCLAVE_RETURN_IF_ERROR(file_->Write(offset_, trailer));
  if (!MUTANT("snapshot-not-synced")) CONCLAVE_RETURN_IF_ERROR(file_->Sync());
  const std::string name = path_.substr(0, path_.size() - kUnfinishedSuffix.size());
  CONCLAVE_RETURN_IF_ERROR(disk_->Rename(path_, name));
  finished_ = true;
  CONCLAVE_RETURN_IF_ERROR(disk_->SyncDirectory(kDirectory));
  return body_bytes_;
}

Saver::~Saver() {
  if (writer_ != nullptr) writer_->Leave();
}

absl::StatusOr<std::optional<Saved>> Saver::Take(const Piece& piece) {
  auto saved = Write(piece);
  if (absl::IsResourceExhausted(saved.status())) {
    writer_.reset();
    CONCLAVE_RETURN_IF_ERROR(Purge(*disk_, 1));
  }
  return saved;
}

absl::StatusOr<std::optional<Saved>> Saver::Write(const Piece& piece) {
  if (piece.abandon) {
    REACHED("snapshot: a file is abandoned");
    writer_.reset();
    return std::nullopt;
  }
  if (piece.first) {
    writer_.reset();
    CONCLAVE_ASSIGN_OR_RETURN(
        writer_, Writer::Create(*disk_, {.cluster_id = cluster_id_, .meta = piece.meta}));
  }
  // The rest of a snapshot that failed: nothing to do, the failure has been told.
  if (writer_ == nullptr) return std::nullopt;
  CONCLAVE_CHECK(writer_->meta() == piece.meta, "a piece of another snapshot");
  if (absl::Status status = writer_->Append(piece.data.view()); !status.ok()) {
    writer_.reset();
    return status;
  }
  if (!piece.last) return std::nullopt;
  const std::unique_ptr<Writer> writer = std::move(writer_);
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t bytes, writer->Finish());
  CONCLAVE_RETURN_IF_ERROR(Purge(*disk_, keep_));
  return Saved{.meta = piece.meta, .bytes = bytes};
}

}  // namespace conclave::snapshot
