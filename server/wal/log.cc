#include "conclave/server/wal/log.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/vote_file.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kZeros("\0\0\0\0\0\0\0\0", kAlignment);
// Buffers that one huge batch has blown up shrink again.
constexpr size_t kKeptHeadBytesMax = size_t{1} << 20;
constexpr size_t kKeptPiecesMax = size_t{1} << 16;
constexpr uint64_t kReserveFromPart = 8;  // of the first segment

std::string PathOf(std::string_view name) { return Concat(kDirectory, "/", name); }

bool IsEmpty(const LogBatch& batch) {
  return !batch.reset.has_value() && !batch.hard_state.has_value() && batch.entries.empty();
}

uint64_t FixedBytes(const LogBatch& batch) {
  return (batch.reset.has_value() ? kResetBytes : 0) +
         (batch.hard_state.has_value() ? kHardStateBytes : 0) +
         batch.entries.size() * kEntryHeadBytes;
}

// Of the record, its padding included.
uint64_t RecordBytes(const LogBatch& batch) {
  uint64_t bytes = FixedBytes(batch);
  for (const raft::Entry& entry : batch.entries) bytes += entry.payload.size();
  CONCLAVE_CHECK(bytes <= kRecordBytesMax, "a batch of ", bytes, " bytes for the log");
  return AlignUp(kHeadBytes + bytes);
}

absl::Status Preallocated(env::Disk& disk, const std::string& path, uint64_t bytes,
                          std::unique_ptr<env::File>* file) {
  CONCLAVE_ASSIGN_OR_RETURN(*file, disk.Open(path, env::OpenMode::kCreateOrReset));
  CONCLAVE_RETURN_IF_ERROR((*file)->Preallocate(0, bytes));
  return (*file)->Sync();
}

// Preallocated under one name, ready under another.
absl::Status MakeFile(env::Disk& disk, uint64_t bytes, std::string_view unfinished,
                      std::string_view name) {
  const std::string path = PathOf(unfinished);
  std::unique_ptr<env::File> file;
  if (absl::Status status = Preallocated(disk, path, bytes, &file); !status.ok()) {
    // Gives back what space it has taken; that it failed is what the caller hears.
    static_cast<void>(disk.Remove(path));
    return status;
  }
  return disk.Rename(path, PathOf(name));
}

}  // namespace

Log::Log(env::Disk* disk, const Options& options) : disk_(disk), options_(options) {}
Log::~Log() = default;

absl::Status Log::Failed(absl::Status status) {
  if (!status.ok()) failed_ = true;
  return status;
}

void Log::Follow(const LogBatch& batch) {
  if (batch.reset.has_value()) {
    last_ = *batch.reset;
    base_ = last_.index;
  }
  if (batch.hard_state.has_value()) hard_state_ = *batch.hard_state;
  if (batch.entries.empty()) return;
  const raft::Index first = batch.entries.front().index;
  CONCLAVE_CHECK(first > base_ && first <= last_.index + 1, "entry ", first.value(),
                 " for a log of ", base_.value() + 1, " to ", last_.index.value());
  for (size_t i = 1; i < batch.entries.size(); ++i) {
    CONCLAVE_CHECK(batch.entries[i].index == first + i, "a gap in entries from ", first.value());
  }
  last_ = {.index = batch.entries.back().index, .term = batch.entries.back().term};
}

void Log::Encode(const LogBatch& batch, uint64_t record_bytes, char* out) {
  const size_t fixed_bytes = EncodeFixed(batch, out + kHeadBytes);
  uint32_t crc = Crc32c({out + kHeadBytes, fixed_bytes});
  uint64_t length = fixed_bytes;
  pieces_.push_back({out, kHeadBytes + fixed_bytes});
  for (const raft::Entry& entry : batch.entries) {
    if (entry.payload.empty()) continue;
    crc = Crc32cExtend(crc, entry.payload.view());
    length += entry.payload.size();
    pieces_.push_back(entry.payload.view());
  }
  const uint64_t padding = record_bytes - kHeadBytes - length;
  if (padding > 0) pieces_.push_back(kZeros.substr(0, padding));
  const RecordHead head{
      .payload_crc = crc,
      .sync_batch = sync_batch_,
      .batch_start = static_cast<uint32_t>(batch_start_),
      .length = static_cast<uint32_t>(length),
      .first = batch.entries.empty() ? raft::Index() : batch.entries.front().index,
      .entry_count = static_cast<uint32_t>(batch.entries.size()),
      .flags = static_cast<uint16_t>((batch.reset.has_value() ? kHasReset : 0) |
                                     (batch.hard_state.has_value() ? kHasHardState : 0)),
  };
  last_crc_ = EncodeRecordHead(head, seed_, end_, out);
  end_ += record_bytes;
}

// Before the log has it: a vote that stands in the log alone could be lost with the log's tail.
absl::Status Log::KeepVotes(std::span<const LogBatch> batches) {
  Vote vote = votes_->vote();
  for (const LogBatch& batch : batches) {
    if (!batch.hard_state.has_value()) continue;
    vote.term = batch.hard_state->term;
    vote.vote = batch.hard_state->vote;
  }
  return vote == votes_->vote() ? absl::OkStatus() : Failed(votes_->Write(vote));
}

absl::Status Log::Append(std::span<const LogBatch> batches) {
  CONCLAVE_CHECK(!failed_, "the log is used after it failed");
  CONCLAVE_RETURN_IF_ERROR(KeepVotes(batches));
  uint64_t total_bytes = 0;
  uint64_t head_bytes = 0;
  for (const LogBatch& batch : batches) {
    if (IsEmpty(batch)) continue;
    total_bytes += RecordBytes(batch);
    head_bytes += kHeadBytes + FixedBytes(batch);
  }
  if (total_bytes == 0) return absl::OkStatus();
  if (end_ + total_bytes > size_ && end_ > kRecordsStart) {
    CONCLAVE_RETURN_IF_ERROR(Failed(StartSegment()));
  }
  CONCLAVE_CHECK(end_ + total_bytes <= kSegmentBytesMax + kRecordBytesMax, total_bytes,
                 " bytes in one append");
  if (!unsynced_ && !marked_) batch_start_ = end_;
  const uint64_t offset = end_;
  heads_.resize(head_bytes);
  pieces_.clear();
  char* head = heads_.data();
  for (const LogBatch& batch : batches) {
    if (IsEmpty(batch)) continue;
    Follow(batch);
    Encode(batch, RecordBytes(batch), head);
    head += kHeadBytes + FixedBytes(batch);
  }
  unsynced_ = true;
  last_is_mark_ = false;
  absl::Status status = Failed(file_->Write(offset, pieces_));
  size_ = std::max(size_, end_);
  if (heads_.capacity() > kKeptHeadBytesMax) heads_ = std::string();
  if (pieces_.capacity() > kKeptPiecesMax) pieces_ = std::vector<std::string_view>();
  return status;
}

absl::Status Log::Sync() {
  CONCLAVE_CHECK(!failed_, "the log is used after it failed");
  if (!unsynced_ && !marked_) return absl::OkStatus();
  if (!MUTANT("fsync-left-out")) CONCLAVE_RETURN_IF_ERROR(Failed(file_->Sync()));
  ++sync_batch_;
  unsynced_ = false;
  marked_ = false;
  return absl::OkStatus();
}

// The proof may stay unsynced: lost, it proves nothing. It belongs to the next sync batch, so that
// a torn write of that can tear it too without looking like rot.
absl::Status Log::MarkSynced() {
  CONCLAVE_CHECK(!failed_ && !unsynced_, "a proof of what is not synced");
  // The header of a segment proves all before it.
  if (marked_ || last_is_mark_ || end_ == kRecordsStart || end_ + kHeadBytes > size_) {
    return absl::OkStatus();
  }
  char head[kHeadBytes];
  batch_start_ = end_;
  last_crc_ = EncodeRecordHead(
      {.sync_batch = sync_batch_, .batch_start = static_cast<uint32_t>(batch_start_)}, seed_, end_,
      head);
  marked_ = true;
  last_is_mark_ = true;
  const uint64_t offset = end_;
  end_ += kHeadBytes;
  CONCLAVE_RETURN_IF_ERROR(Failed(file_->Write(offset, std::string_view(head, kHeadBytes))));
  // And once more where damage of the log does not reach. The proof itself is not synced yet.
  return Failed(
      votes_->WriteMark({.sequence = segments_.back().sequence, .offset = offset, .last = last_}));
}

absl::Status Log::StartSegment() {
  // What a header seals must be durable before the header is.
  if (!MUTANT("segment-sealed-before-the-fsync")) CONCLAVE_RETURN_IF_ERROR(Sync());
  SetAside* const source = IsReady(spare_) ? &spare_ : IsReady(reserve_) ? &reserve_ : &next_;
  if (source == &spare_) REACHED("wal: a spare segment is used");
  const std::string path = PathOf(source == &spare_     ? kSpareName
                                  : source == &reserve_ ? kReserveName
                                                        : kNextName);
  std::unique_ptr<env::File> file;
  if (IsReady(*source)) {
    CONCLAVE_ASSIGN_OR_RETURN(file, disk_->Open(path, env::OpenMode::kReadWrite));
  } else {
    CONCLAVE_RETURN_IF_ERROR(Preallocated(*disk_, path, options_.segment_bytes, &file));
    *source = SetAside::kZeroed;
  }
  const bool zeroed = std::exchange(*source, SetAside::kNone) == SetAside::kZeroed;
  Segment segment{.sequence = next_sequence_++, .first = last_.index + 1, .name = ""};
  segment.name = SegmentName(segment.sequence, segment.first);
  const std::string header = EncodeSegmentHeader({
      .cluster_id = options_.cluster_id,
      .member_id = options_.member_id,
      .sequence = segment.sequence,
      .previous_end = end_,
      .previous_crc = last_crc_,
      .last = last_,
      .hard_state = hard_state_,
      .sync_batch = sync_batch_,
      .zeroed = zeroed,
  });
  CONCLAVE_RETURN_IF_ERROR(file->Write(0, header));
  CONCLAVE_RETURN_IF_ERROR(file->Sync());
  CONCLAVE_RETURN_IF_ERROR(disk_->Rename(path, PathOf(segment.name)));
  if (!MUTANT("directory-not-synced")) {
    CONCLAVE_RETURN_IF_ERROR(disk_->SyncDirectory(kDirectory));
  }
  segments_.push_back(std::move(segment));
  file_ = std::move(file);
  seed_ = SegmentSeed(header);
  end_ = kRecordsStart;
  size_ = options_.segment_bytes;
  last_crc_ = 0;
  last_is_mark_ = false;
  return absl::OkStatus();
}

// A segment may go if the next one's first entry shows that it holds none above `index`.
absl::Status Log::TruncatePrefix(raft::Index index) {
  bool removed = false;
  while (segments_.size() > 1 && (segments_[1].first <= index + 1 ||
                                  (MUTANT("one-segment-too-many-removed") && !removed))) {
    REACHED("wal: an old segment goes");
    const std::string path = PathOf(segments_.front().name);
    CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_->Open(path, env::OpenMode::kRead));
    CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    if (spare_ == SetAside::kNone && size == options_.segment_bytes) {
      CONCLAVE_RETURN_IF_ERROR(disk_->Rename(path, PathOf(kSpareName)));
      spare_ = SetAside::kUsed;
    } else {
      CONCLAVE_RETURN_IF_ERROR(disk_->Remove(path));
    }
    segments_.pop_front();
    removed = true;
  }
  return removed ? disk_->SyncDirectory(kDirectory) : absl::OkStatus();
}

bool Log::BeginSpare() {
  if (spare_ != SetAside::kNone || remaining_bytes() > size_ / 2) return false;
  spare_ = SetAside::kUnderWay;
  return true;
}

absl::Status Log::MakeSpare(env::Disk& disk, uint64_t segment_bytes) {
  return MakeFile(disk, segment_bytes, kSpareUnfinishedName, kSpareName);
}

bool Log::BeginReserve() {
  if (reserve_ != SetAside::kNone || spare_ == SetAside::kUnderWay) return false;
  // A member that has hardly written anything stays small.
  if (segments_.size() == 1 && end_ < size_ / kReserveFromPart) return false;
  reserve_ = SetAside::kUnderWay;
  return true;
}

absl::Status Log::MakeReserve(env::Disk& disk, uint64_t segment_bytes) {
  return MakeFile(disk, segment_bytes, kReserveUnfinishedName, kReserveName);
}

void Log::EndReserve(bool made) {
  CONCLAVE_CHECK(reserve_ == SetAside::kUnderWay, "no reserve was begun");
  reserve_ = made ? SetAside::kZeroed : SetAside::kNone;
}

absl::Status Log::EnsureRoom(uint64_t bytes) {
  CONCLAVE_CHECK(!failed_, "the log is used after it failed");
  if (end_ + bytes <= size_) return absl::OkStatus();
  const bool large = kRecordsStart + bytes > options_.segment_bytes;
  if (large && end_ <= options_.segment_bytes) return Grow(bytes);
  CONCLAVE_RETURN_IF_ERROR(EnsureNextSegment());
  if (!large) return absl::OkStatus();
  CONCLAVE_RETURN_IF_ERROR(Failed(StartSegment()));
  return Grow(bytes);
}

// For what no segment holds, this one gets longer.
absl::Status Log::Grow(uint64_t bytes) {
  const uint64_t size = std::min(end_ + bytes, kSegmentBytesMax + kRecordBytesMax);
  absl::Status status = file_->Preallocate(size_, size - size_);
  if (absl::IsResourceExhausted(status)) {
    REACHED("wal: the disk has no room for a large write");
    if (absl::Status back = file_->Truncate(size_); !back.ok()) return Failed(std::move(back));
    return status;
  }
  if (status.ok()) size_ = size;
  return Failed(std::move(status));
}

absl::Status Log::EnsureNextSegment() {
  if (IsReady(spare_) || IsReady(reserve_) || IsReady(next_)) return absl::OkStatus();
  const std::string path = PathOf(kNextName);
  std::unique_ptr<env::File> file;
  absl::Status status = Preallocated(*disk_, path, options_.segment_bytes, &file);
  next_ = status.ok() ? SetAside::kZeroed : SetAside::kNone;
  if (absl::IsResourceExhausted(status)) {
    // As above. Somebody else may make better use of what space it has taken.
    static_cast<void>(disk_->Remove(path));
    return status;
  }
  return Failed(std::move(status));
}

void Log::EndSpare(bool made) {
  CONCLAVE_CHECK(spare_ == SetAside::kUnderWay, "no spare was begun");
  spare_ = made ? SetAside::kZeroed : SetAside::kNone;
}

uint64_t Log::remaining_bytes() const { return size_ > end_ ? size_ - end_ : 0; }

}  // namespace conclave::wal
