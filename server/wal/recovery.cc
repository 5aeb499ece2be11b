// Recovery of the log: reads what is there, judges it, repairs the tail.
//
// Every segment but the last is sealed by its successor's header, which says where it ends: all of
// its records must be valid. In the last one, the first bad record is the end, unless a proof of
// its sync stands behind it (log.h).
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "conclave/base/bytes.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kDamageUrl = "conclave/log-damage";

absl::Status WithDamage(const Damage& damage, std::string_view message) {
  absl::Status status = absl::DataLossError(Concat(std::string(message)));
  status.SetPayload("conclave/log-damage",
                    absl::Cord(Concat(damage.offset, "\n", damage.first.value(), "\n",
                                      damage.last.value(), "\n", damage.file)));
  return status;
}

std::string PathOf(std::string_view name) { return Concat(kDirectory, "/", name); }

// The first valid head of a record at or behind `from`.
std::optional<uint64_t> FirstHead(std::string_view segment, uint64_t from, uint32_t seed) {
  for (uint64_t at = from; at + kHeadBytes <= segment.size(); at += kAlignment) {
    if (DecodeRecordHead(segment, at, seed).has_value()) return at;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Damage> DamageOf(const absl::Status& status) {
  const auto payload = status.GetPayload({kDamageUrl.data(), kDamageUrl.size()});
  if (!payload.has_value()) return std::nullopt;
  const std::vector<std::string> parts =
      absl::StrSplit(std::string(*payload), absl::MaxSplits('\n', 3));
  uint64_t numbers[3];
  if (parts.size() != 4) return std::nullopt;
  for (size_t i = 0; i < 3; ++i) {
    if (!absl::SimpleAtoi(parts[i], &numbers[i])) return std::nullopt;
  }
  return Damage{.file = parts[3],
                .offset = numbers[0],
                .first = raft::Index(numbers[1]),
                .last = raft::Index(numbers[2])};
}

// One run of Log::Recover.
class Recovery {
 public:
  Recovery(env::Disk* disk, const Options& options, Position snapshot)
      : disk_(*disk), options_(options), snapshot_(snapshot), log_(new Log(disk, options)) {}

  absl::StatusOr<Recovered> Run();
  absl::Status CheckOwner();

 private:
  struct Segment {
    std::string name;
    ParsedName parsed;
    SegmentHeader header;
    uint32_t seed = 0;
  };
  // Where a record may stand, and what comes next.
  struct Cursor {
    uint64_t offset = kRecordsStart;
    uint64_t sync_batch = 0;
    uint64_t batch_start = kRecordsStart;
    uint32_t last_crc = 0;
    bool last_is_mark = false;
  };

  absl::Status RefuseForeign();
  absl::Status List();
  absl::Status ReadHeader(Segment* segment);
  absl::Status Create();
  // Leaves the segments that can hold something behind the snapshot, and reads their headers.
  absl::Status ChooseFirst();
  absl::Status ReadSealed(const Segment& segment, const SegmentHeader& next);
  absl::Status ReadLast(const Segment& segment);
  absl::Status RepairTail(env::File& file, std::string_view content, uint32_t seed,
                          const Cursor& end);
  // The snapshot must reach up to where the log starts.
  absl::Status CheckBase() const;
  absl::Status RemoveLeftovers();
  absl::Status JoinSnapshot();

  static std::optional<Record> Next(std::string_view content, const Segment& segment,
                                    Cursor* cursor);
  absl::Status Replay(const Segment& segment, const Bytes& content, uint64_t end);
  absl::Status ReplayRecord(const Segment& segment, uint64_t offset, const Bytes& content,
                            const Record& record);

  std::string Where(std::string_view name) const {
    return Concat(disk_.Describe(), "/", PathOf(name));
  }
  absl::Status DamagedAt(const Segment& segment, uint64_t offset, raft::Index last,
                         std::string_view what) const;

  env::Disk& disk_;
  const Options options_;
  const Position snapshot_;
  std::unique_ptr<Log> log_;

  std::vector<Segment> segments_;
  std::vector<std::string> leftovers_;  // to be removed when all is well

  // The log as replayed so far: entries (base_, last_], of which those behind the snapshot are
  // kept.
  Position base_;
  Position last_;
  raft::Index floor_;  // where the log was reset to
  raft::HardState hard_state_;
  std::optional<raft::Term> term_at_snapshot_;
  std::vector<raft::Entry> entries_;
  uint64_t torn_bytes_ = 0;
};

absl::Status Recovery::DamagedAt(const Segment& segment, uint64_t offset, raft::Index last,
                                 std::string_view what) const {
  // What is damaged may have replaced entries that were not committed.
  const Damage damage{.file = PathOf(segment.name),
                      .offset = offset,
                      .first = std::min(last_.index, hard_state_.commit) + 1,
                      .last = last};
  return WithDamage(
      damage, Concat(Where(segment.name), " is damaged at byte ", offset, " (", std::string(what),
                     "): acknowledged entries from ", damage.first.value(),
                     last.value() == 0 ? std::string(" on") : Concat(" to ", last.value()),
                     " may be lost; nothing was changed"));
}

absl::Status Recovery::RefuseForeign() {
  CONCLAVE_ASSIGN_OR_RETURN(const auto top, disk_.List(""));
  if (std::find(top.begin(), top.end(), "member") != top.end()) {
    return absl::FailedPreconditionError(
        Concat(disk_.Describe(),
               " is a data directory of etcd (it has member/), which this server cannot read; "
               "start with a directory of its own"));
  }
  auto names = disk_.List(kDirectory);
  if (!names.ok()) return absl::IsNotFound(names.status()) ? absl::OkStatus() : names.status();
  for (const std::string& name : *names) {
    if (name.ends_with(".wal")) {
      return absl::FailedPreconditionError(
          Concat(Where(name),
                 " is a log of etcd, which this server cannot read; start with a directory "
                 "of its own"));
    }
  }
  return absl::OkStatus();
}

absl::Status Recovery::ReadHeader(Segment* segment) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(segment->name), env::OpenMode::kRead));
  std::string bytes(kHeaderBytes, '\0');
  CONCLAVE_ASSIGN_OR_RETURN(const size_t size, file->Read(0, bytes));
  bytes.resize(size);
  const auto header = DecodeSegmentHeader(bytes);
  if (absl::IsFailedPrecondition(header.status())) {
    return absl::FailedPreconditionError(
        Concat(Where(segment->name), ": ", header.status().message()));
  }
  if (!header.ok()) {
    return DamagedAt(*segment, 0, raft::Index(), std::string(header.status().message()));
  }
  if (header->cluster_id != options_.cluster_id) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s belongs to cluster %x, but this server is started as a member of cluster %x",
        Where(segment->name), header->cluster_id, options_.cluster_id));
  }
  if (header->member_id != options_.member_id) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s belongs to member %x, but this server is started as member %x", Where(segment->name),
        header->member_id.value(), options_.member_id.value()));
  }
  if (header->sequence != segment->parsed.sequence ||
      header->last.index + 1 != segment->parsed.first) {
    return DamagedAt(*segment, 0, raft::Index(), "its name is not the one it was given");
  }
  segment->header = *header;
  segment->seed = SegmentSeed(bytes);
  return absl::OkStatus();
}

absl::Status Recovery::List() {
  auto names = disk_.List(kDirectory);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  CONCLAVE_RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    if (const auto parsed = ParseSegmentName(name); parsed.has_value()) {
      segments_.push_back({.name = name, .parsed = *parsed, .header = {}});
    } else if (name == kSpareUnfinishedName || name == kNextName) {
      leftovers_.push_back(name);
    } else if (name == kSpareName) {
      CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(name), env::OpenMode::kRead));
      CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
      if (size == options_.segment_bytes) {
        log_->spare_ = Log::Spare::kReady;
      } else {
        leftovers_.push_back(name);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Recovery::ChooseFirst() {
  // Removed segments may reappear in a crash, in any combination: only the last unbroken sequence
  // counts.
  size_t first = segments_.size() - 1;
  while (first > 0 &&
         segments_[first - 1].parsed.sequence + 1 == segments_[first].parsed.sequence) {
    --first;
  }
  // What ends at or before the snapshot need not be read.
  while (first + 1 < segments_.size() && segments_[first + 1].parsed.first <= snapshot_.index + 1) {
    log_->segments_.push_back({.sequence = segments_[first].parsed.sequence,
                               .first = segments_[first].parsed.first,
                               .name = segments_[first].name});
    ++first;
  }
  const size_t skipped = log_->segments_.size();
  for (size_t i = 0; i + skipped < first; ++i) leftovers_.push_back(segments_[i].name);
  segments_.erase(segments_.begin(), segments_.begin() + static_cast<ptrdiff_t>(first));
  for (Segment& segment : segments_) CONCLAVE_RETURN_IF_ERROR(ReadHeader(&segment));
  base_ = segments_.front().header.last;
  last_ = base_;
  hard_state_ = segments_.front().header.hard_state;
  if (base_.index == snapshot_.index) term_at_snapshot_ = base_.term;
  return absl::OkStatus();
}

// The valid record at the cursor, moving the cursor behind it.
std::optional<Record> Recovery::Next(std::string_view content, const Segment& segment,
                                     Cursor* cursor) {
  const std::optional<Record> record = DecodeRecord(content, cursor->offset, segment.seed);
  if (!record.has_value()) return std::nullopt;
  const bool first = cursor->offset == kRecordsStart;
  const bool same_batch = !first && record->head.sync_batch == cursor->sync_batch &&
                          record->head.batch_start == cursor->batch_start;
  const bool next_batch =
      record->head.sync_batch == (first ? segment.header.sync_batch : cursor->sync_batch + 1) &&
      record->head.batch_start == cursor->offset;
  if (!same_batch && !next_batch) return std::nullopt;
  *cursor = {.offset = record->end,
             .sync_batch = record->head.sync_batch,
             .batch_start = record->head.batch_start,
             .last_crc = record->head.head_crc,
             .last_is_mark = record->head.length == 0};
  return record;
}

absl::Status Recovery::ReadSealed(const Segment& segment, const SegmentHeader& next) {
  const uint64_t end = next.previous_end;
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(segment.name), env::OpenMode::kRead));
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (end < kRecordsStart || end > size) {
    return DamagedAt(segment, size, next.last.index, "it is cut off");
  }
  char* out = nullptr;
  const Bytes content = Bytes::Uninitialized(end, &out);
  CONCLAVE_ASSIGN_OR_RETURN(const size_t read, file->Read(0, {out, end}));
  Cursor cursor;
  if (read == end) {
    while (cursor.offset < end && Next(content.view(), segment, &cursor).has_value()) {
    }
  }
  if (cursor.offset != end || cursor.last_crc != next.previous_crc) {
    // Replays what is good, for the indices in the message.
    if (read == end) CONCLAVE_RETURN_IF_ERROR(Replay(segment, content, cursor.offset));
    return DamagedAt(segment, cursor.offset, next.last.index, "a record's checksum is wrong");
  }
  CONCLAVE_RETURN_IF_ERROR(Replay(segment, content, end));
  if (last_ != next.last || hard_state_ != next.hard_state) {
    return DamagedAt(segment, end, next.last.index, "the next segment does not continue it");
  }
  return absl::OkStatus();
}

absl::Status Recovery::ReadLast(const Segment& segment) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(segment.name), env::OpenMode::kReadWrite));
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > kSegmentBytesMax + kRecordBytesMax) {
    return DamagedAt(segment, 0, raft::Index(), "it is too long");
  }
  std::string content(size, '\0');
  CONCLAVE_ASSIGN_OR_RETURN(const size_t read, file->Read(0, content));
  content.resize(read);
  Cursor cursor{.sync_batch = segment.header.sync_batch - 1};
  while (Next(content, segment, &cursor).has_value()) {
  }
  const uint64_t end = cursor.offset;
  CONCLAVE_RETURN_IF_ERROR(
      Replay(segment, Bytes::Copy(std::string_view(content).substr(0, end)), end));
  if (const auto proof = FindProofBehind(content, end, segment.seed); proof.has_value()) {
    return DamagedAt(segment, end, raft::Index(),
                     Concat("a batch written later stands intact at byte ", *proof));
  }
  CONCLAVE_RETURN_IF_ERROR(CheckBase());
  CONCLAVE_RETURN_IF_ERROR(RepairTail(*file, content, segment.seed, cursor));
  log_->file_ = std::move(file);
  log_->seed_ = segment.seed;
  log_->end_ = end;
  log_->last_crc_ = cursor.last_crc;
  log_->last_is_mark_ = cursor.last_is_mark;
  log_->sync_batch_ = cursor.sync_batch + 1;
  return absl::OkStatus();
}

// Trusts nothing that was not proven synced: a sync may have failed, and then the page cache shows
// what the disk does not have.
absl::Status Recovery::RepairTail(env::File& file, std::string_view content, uint32_t seed,
                                  const Cursor& end) {
  const uint64_t from = end.batch_start / kPageBytes * kPageBytes;
  if (end.offset > from) {
    CONCLAVE_RETURN_IF_ERROR(file.Write(from, content.substr(from, end.offset - from)));
  }
  const std::string_view rest = content.substr(std::min<uint64_t>(end.offset, content.size()));
  if (const size_t last = rest.find_last_not_of('\0'); last != std::string_view::npos) {
    // In a segment that is used for the second time, old records are to be expected here.
    if (FirstHead(content, end.offset, seed).has_value()) torn_bytes_ = last + 1;
    CONCLAVE_RETURN_IF_ERROR(file.Preallocate(end.offset, last + 1));
  }
  log_->size_ = std::max<uint64_t>(content.size(), end.offset);
  if (log_->size_ < options_.segment_bytes) {
    const absl::Status status = file.Preallocate(log_->size_, options_.segment_bytes - log_->size_);
    if (status.ok()) log_->size_ = options_.segment_bytes;
    // A full disk must not keep the server from starting.
    if (!status.ok() && !absl::IsResourceExhausted(status)) return status;
  }
  CONCLAVE_RETURN_IF_ERROR(file.Sync());
  return disk_.SyncDirectory(kDirectory);
}

absl::Status Recovery::Replay(const Segment& segment, const Bytes& content, uint64_t end) {
  Cursor cursor;
  while (cursor.offset < end) {
    const uint64_t offset = cursor.offset;
    const std::optional<Record> record = Next(content.view(), segment, &cursor);
    CONCLAVE_CHECK(record.has_value(), "a record that was valid is not any more");
    CONCLAVE_RETURN_IF_ERROR(ReplayRecord(segment, offset, content, *record));
  }
  return absl::OkStatus();
}

absl::Status Recovery::ReplayRecord(const Segment& segment, uint64_t offset, const Bytes& content,
                                    const Record& record) {
  if (const auto reset = record.reset(); reset.has_value()) {
    entries_.clear();
    term_at_snapshot_.reset();
    base_ = *reset;
    last_ = *reset;
    floor_ = reset->index;
    if (base_.index == snapshot_.index) term_at_snapshot_ = base_.term;
  }
  if (const auto state = record.hard_state(); state.has_value()) hard_state_ = *state;
  if (record.head.entry_count == 0) return absl::OkStatus();
  const raft::Index first = record.head.first;
  if (first <= floor_ || first > last_.index + 1) {
    return DamagedAt(segment, offset, raft::Index(), "its entries do not continue the log");
  }
  if (first <= snapshot_.index) {
    entries_.clear();
    // It may reach below base_: what it replaced there stood in a segment that is gone by now.
    if (first <= base_.index || base_.index != snapshot_.index) term_at_snapshot_.reset();
  } else if (first - snapshot_.index <= entries_.size()) {
    entries_.resize(first - snapshot_.index - 1);
  }
  record.ForEachEntry([&](const Record::EntryView& entry) {
    last_ = {.index = entry.index, .term = entry.term};
    if (entry.index == snapshot_.index) term_at_snapshot_ = entry.term;
    if (entry.index <= snapshot_.index) return;
    entries_.push_back({.term = entry.term,
                        .index = entry.index,
                        .type = entry.type,
                        .payload = content.Slice(entry.payload)});
  });
  return absl::OkStatus();
}

absl::Status Recovery::CheckBase() const {
  if (base_.index <= snapshot_.index) return absl::OkStatus();
  const Damage damage{.file = std::string(kDirectory),
                      .offset = 0,
                      .first = snapshot_.index + 1,
                      .last = base_.index};
  return WithDamage(damage, Concat("the log in ", Where(""), " starts behind a snapshot at index ",
                                   base_.index.value(), ", but the newest usable one is at ",
                                   snapshot_.index.value(), "; nothing was changed"));
}

// The log must continue the snapshot, or start anew behind it.
absl::Status Recovery::JoinSnapshot() {
  log_->base_ = base_.index;
  log_->last_ = last_;
  log_->hard_state_ = hard_state_;
  if (term_at_snapshot_ == snapshot_.term) return log_->MarkSynced();
  entries_.clear();
  CONCLAVE_RETURN_IF_ERROR(
      log_->Append(LogBatch{.reset = snapshot_, .hard_state = {}, .entries = {}}));
  CONCLAVE_RETURN_IF_ERROR(log_->Sync());
  return log_->MarkSynced();
}

absl::Status Recovery::RemoveLeftovers() {
  for (const std::string& name : leftovers_) CONCLAVE_RETURN_IF_ERROR(disk_.Remove(PathOf(name)));
  return absl::OkStatus();
}

absl::Status Recovery::Create() {
  CONCLAVE_RETURN_IF_ERROR(disk_.CreateDirectory(kDirectory));
  CONCLAVE_RETURN_IF_ERROR(disk_.SyncDirectory(""));
  log_->base_ = snapshot_.index;
  log_->last_ = snapshot_;
  return log_->StartSegment();
}

absl::StatusOr<Recovered> Recovery::Run() {
  CONCLAVE_CHECK(options_.segment_bytes >= kSegmentBytesMin &&
                     options_.segment_bytes <= kSegmentBytesMax &&
                     options_.segment_bytes % kPageBytes == 0,
                 "segments of ", options_.segment_bytes, " bytes");
  CONCLAVE_RETURN_IF_ERROR(RefuseForeign());
  CONCLAVE_RETURN_IF_ERROR(List());
  const bool existed = !segments_.empty();
  if (existed) {
    CONCLAVE_RETURN_IF_ERROR(ChooseFirst());
    for (size_t i = 0; i < segments_.size(); ++i) {
      const Segment& segment = segments_[i];
      log_->segments_.push_back({.sequence = segment.parsed.sequence,
                                 .first = segment.parsed.first,
                                 .name = segment.name});
      CONCLAVE_RETURN_IF_ERROR(i + 1 < segments_.size()
                                   ? ReadSealed(segment, segments_[i + 1].header)
                                   : ReadLast(segment));
    }
  }
  CONCLAVE_RETURN_IF_ERROR(RemoveLeftovers());
  CONCLAVE_RETURN_IF_ERROR(existed ? JoinSnapshot() : Create());
  return Recovered{.log = std::move(log_),
                   .hard_state = hard_state_,
                   .entries = std::move(entries_),
                   .existed = existed,
                   .torn_bytes = torn_bytes_};
}

absl::Status Recovery::CheckOwner() {
  absl::Status status = RefuseForeign();
  if (status.ok()) status = List();
  if (status.ok() && !segments_.empty()) status = ReadHeader(&segments_.back());
  // Without the lock, files may come and go meanwhile.
  return absl::IsDataLoss(status) || absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status Log::CheckOwner(env::Disk& disk, const Options& options) {
  return Recovery(&disk, options, {}).CheckOwner();
}

absl::StatusOr<Recovered> Log::Recover(env::Disk& disk, const Options& options, Position snapshot) {
  return Recovery(&disk, options, snapshot).Run();
}

absl::StatusOr<bool> Log::Exists(env::Disk& disk) {
  auto names = disk.List(kDirectory);
  if (absl::IsNotFound(names.status())) return false;
  CONCLAVE_RETURN_IF_ERROR(names.status());
  return std::any_of(names->begin(), names->end(),
                     [](const std::string& name) { return ParseSegmentName(name).has_value(); });
}

}  // namespace conclave::wal
