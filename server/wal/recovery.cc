// Recovery of the log: reads what is there, judges it, repairs the tail.
//
// Every segment but the last is sealed by its successor's header, which says where it ends: all of
// its records must be valid. In the last one, the first bad record is the end, unless a proof of
// its sync stands behind it, or no crash can have made it bad (log.h).
//
// Reading comes first and changes nothing. Then a sound log gets its tail repaired; a damaged one
// is left alone, or cut: a new log is begun with what is legible before the damage.
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
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/damage.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"
#include "conclave/server/wal/vote_file.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kDamageUrl = "conclave/log-damage";
constexpr std::string_view kDamagedSuffix = ".damaged";
constexpr uint64_t kRewriteBytes = uint64_t{4} << 20;  // of entries, in one batch of a new log

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
  Recovery(env::Disk* disk, const Options& options, Position snapshot, const MayCut& may_cut)
      : disk_(*disk),
        options_(options),
        snapshot_(snapshot),
        may_cut_(may_cut),
        log_(new Log(disk, options)) {}

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
  // The last segment, as it was read.
  struct Tail {
    std::unique_ptr<env::File> file;
    std::string content;
    uint32_t seed = 0;
    Cursor end;
  };
  struct Place {
    size_t segment = 0;
    uint64_t offset = 0;
  };

  absl::Status RefuseForeign();
  absl::Status List();
  absl::Status ReadHeader(Segment* segment);
  absl::Status ReadVotes();
  // Joins what wal/vote says with what the log says, and writes it down.
  absl::Status OpenVotes();
  absl::Status Create();
  // All of the log, changing nothing.
  absl::Status Read();
  // Leaves the segments that can hold something behind the snapshot, and reads their headers.
  absl::Status ChooseFirst();
  absl::Status ReadSealed(const Segment& segment, const SegmentHeader& next);
  absl::Status ReadLast(const Segment& segment);
  absl::Status RepairTail();
  // Of a damaged log: `damage` again if it may not be cut.
  absl::Status Cut(const absl::Status& damage);
  absl::StatusOr<Place> ReplayBefore(Place damaged);
  absl::StatusOr<Bytes> Content(const Segment& segment);
  Position LostBehind(Place damaged) const;
  absl::Status StartAnew();
  absl::Status SetAside();
  // The snapshot must reach up to where the log starts.
  absl::Status CheckBase() const;
  absl::Status CheckMark();
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
  const MayCut& may_cut_;
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
  std::optional<Tail> tail_;
  uint64_t torn_bytes_ = 0;

  std::optional<Vote> votes_;
  std::optional<Mark> mark_;
  absl::Status votes_damage_;
  raft::HardState logged_;  // what the log alone says of hard_state_
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
    } else if (name == kSpareUnfinishedName || name == kNextName ||
               name == kReserveUnfinishedName || name == kVoteUnfinishedName) {
      leftovers_.push_back(name);
    } else if (name == kSpareName || name == kReserveName) {
      CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(name), env::OpenMode::kRead));
      CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
      if (size == options_.segment_bytes) {
        (name == kSpareName ? log_->spare_ : log_->reserve_) = Log::SetAside::kUsed;
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
    REACHED("wal: segments before the snapshot are not read");
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
  const auto got = file->Read(0, {out, end});
  if (absl::IsDataLoss(got.status())) {
    return DamagedAt(segment, 0, next.last.index, std::string(got.status().message()));
  }
  CONCLAVE_RETURN_IF_ERROR(got.status());
  const size_t read = *got;
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
  const auto read = file->Read(0, content);
  if (absl::IsDataLoss(read.status())) {
    return DamagedAt(segment, 0, raft::Index(), std::string(read.status().message()));
  }
  CONCLAVE_RETURN_IF_ERROR(read.status());
  content.resize(*read);
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
  const bool bad = std::string_view(content)
                       .substr(std::min<uint64_t>(end, content.size()))
                       .find_first_not_of('\0') != std::string_view::npos;
  if (bad && segment.header.zeroed && !MayBeTorn(content, end, segment.seed)) {
    return DamagedAt(segment, end, raft::Index(), "no crash leaves a record like that");
  }
  tail_ = Tail{std::move(file), std::move(content), segment.seed, cursor};
  return absl::OkStatus();
}

absl::Status Recovery::Read() {
  CONCLAVE_RETURN_IF_ERROR(ChooseFirst());
  for (size_t i = 0; i < segments_.size(); ++i) {
    const Segment& segment = segments_[i];
    log_->segments_.push_back(
        {.sequence = segment.parsed.sequence, .first = segment.parsed.first, .name = segment.name});
    CONCLAVE_RETURN_IF_ERROR(i + 1 < segments_.size() ? ReadSealed(segment, segments_[i + 1].header)
                                                      : ReadLast(segment));
  }
  CONCLAVE_RETURN_IF_ERROR(CheckMark());
  return CheckBase();
}

// It was at rest at the mark: what stood before it was synced.
absl::Status Recovery::CheckMark() {
  mark_ = VoteFile::ReadMark(disk_, options_);
  const Segment& last = segments_.back();
  if (!mark_.has_value() || mark_->sequence < last.parsed.sequence) return absl::OkStatus();
  if (mark_->sequence > last.parsed.sequence) {
    return DamagedAt(last, tail_->end.offset, mark_->last.index, "a file behind it is missing");
  }
  if (mark_->offset <= tail_->end.offset) return absl::OkStatus();
  return DamagedAt(last, tail_->end.offset, mark_->last.index,
                   Concat("it had been synced up to byte ", mark_->offset));
}

// Trusts nothing that was not proven synced: a sync may have failed, and then the page cache shows
// what the disk does not have.
absl::Status Recovery::RepairTail() {
  env::File& file = *tail_->file;
  const std::string_view content = tail_->content;
  const Cursor& end = tail_->end;
  const uint64_t from = end.batch_start / kPageBytes * kPageBytes;
  if (end.offset > from) {
    CONCLAVE_RETURN_IF_ERROR(file.Write(from, content.substr(from, end.offset - from)));
  }
  const std::string_view rest = content.substr(std::min<uint64_t>(end.offset, content.size()));
  if (const size_t last = rest.find_last_not_of('\0'); last != std::string_view::npos) {
    // In a segment that is used for the second time, old records are to be expected here.
    if (FirstHead(content, end.offset, tail_->seed).has_value()) {
      REACHED("wal: the tail is torn");
      if (MUTANT("torn-tail-refused")) return absl::DataLossError("the log is torn");
      torn_bytes_ = last + 1;
    }
  }
  // Also what is zeros already: they may be those of a start whose sync failed.
  log_->size_ = std::max<uint64_t>(content.size(), end.offset);
  if (log_->size_ > end.offset) {
    CONCLAVE_RETURN_IF_ERROR(file.Preallocate(end.offset, log_->size_ - end.offset));
  }
  if (log_->size_ < options_.segment_bytes) {
    const absl::Status status = file.Preallocate(log_->size_, options_.segment_bytes - log_->size_);
    if (status.ok()) log_->size_ = options_.segment_bytes;
    // A full disk must not keep the server from starting.
    if (!status.ok() && !absl::IsResourceExhausted(status)) return status;
  }
  CONCLAVE_RETURN_IF_ERROR(file.Sync());
  CONCLAVE_RETURN_IF_ERROR(disk_.SyncDirectory(kDirectory));
  log_->file_ = std::move(tail_->file);
  log_->seed_ = tail_->seed;
  log_->end_ = end.offset;
  log_->last_crc_ = end.last_crc;
  log_->last_is_mark_ = end.last_is_mark;
  log_->sync_batch_ = end.sync_batch + 1;
  log_->next_sequence_ = segments_.back().parsed.sequence + 1;
  return absl::OkStatus();
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
    REACHED("wal: a reset is replayed");
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
  } else if (first - snapshot_.index <= entries_.size() && !MUTANT("replaced-entries-come-back")) {
    REACHED("wal: entries were replaced");
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
  // A segment that begins with what is appended here is not to claim it for the one before.
  log_->hard_state_ = logged_;
  LogBatch joint;
  if (hard_state_ != logged_) joint.hard_state = hard_state_;
  if (term_at_snapshot_ != snapshot_.term) {
    REACHED("wal: the log starts anew behind its snapshot");
    entries_.clear();
    joint.reset = snapshot_;
  }
  CONCLAVE_RETURN_IF_ERROR(log_->Append(joint));
  CONCLAVE_RETURN_IF_ERROR(log_->Sync());
  return log_->MarkSynced();
}

// ---- Votes --------------------------------------------------------------------------------------

absl::Status Recovery::ReadVotes() {
  mark_ = VoteFile::ReadMark(disk_, options_);
  auto votes = VoteFile::Read(disk_, options_);
  if (absl::IsDataLoss(votes.status())) {
    votes_damage_ = votes.status();
    return absl::OkStatus();
  }
  CONCLAVE_RETURN_IF_ERROR(votes.status());
  votes_ = *votes;
  return absl::OkStatus();
}

absl::Status Recovery::OpenVotes() {
  Vote vote = votes_.value_or(Vote());
  if (hard_state_.term > vote.term || (hard_state_.term == vote.term && !vote.vote)) {
    vote.term = hard_state_.term;
    vote.vote = hard_state_.vote;
  }
  // Whether this log was waiting for repair stood in there: it must be taken as if it were.
  if (!votes_damage_.ok() && may_cut_ && may_cut_(entries_)) {
    vote.lost = {.index = raft::Index(UINT64_MAX), .term = vote.term};
    vote = {.term = vote.term + 1, .vote = {}, .lost = vote.lost};
  }
  logged_ = hard_state_;
  hard_state_.term = vote.term;
  hard_state_.vote = vote.vote;
  CONCLAVE_ASSIGN_OR_RETURN(log_->votes_, VoteFile::Open(disk_, options_, vote));
  return absl::OkStatus();
}

// ---- Damage -------------------------------------------------------------------------------------

absl::StatusOr<Bytes> Recovery::Content(const Segment& segment) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk_.Open(PathOf(segment.name), env::OpenMode::kRead));
  CONCLAVE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > kSegmentBytesMax + kRecordBytesMax) return Bytes();
  char* out = nullptr;
  Bytes content = Bytes::Uninitialized(size, &out);
  const auto read = file->Read(0, {out, size});
  if (absl::IsDataLoss(read.status())) return Bytes();
  CONCLAVE_RETURN_IF_ERROR(read.status());
  return *read == size ? std::move(content) : content.Slice(content.view().substr(0, *read));
}

// Replays up to the damage; gives where the first one is, which may be before the one that was
// found.
absl::StatusOr<Recovery::Place> Recovery::ReplayBefore(Place damaged) {
  entries_.clear();
  term_at_snapshot_.reset();
  floor_ = {};
  base_ = last_ = {};
  hard_state_ = {};
  if (damaged.segment == 0 && damaged.offset <= kRecordsStart) return Place{};
  const SegmentHeader& first = segments_.front().header;
  base_ = last_ = first.last;
  hard_state_ = first.hard_state;
  if (base_.index == snapshot_.index) term_at_snapshot_ = base_.term;
  for (size_t i = 0; i <= damaged.segment; ++i) {
    const Segment& segment = segments_[i];
    const bool sealed = i < damaged.segment;
    if (!sealed && damaged.offset <= kRecordsStart) break;
    CONCLAVE_ASSIGN_OR_RETURN(const Bytes content, Content(segment));
    Cursor cursor;
    while (sealed || cursor.offset < damaged.offset) {
      const Cursor before = cursor;
      const auto record = Next(content.view(), segment, &cursor);
      if (!record.has_value()) break;
      if (!ReplayRecord(segment, before.offset, content, *record).ok()) {
        return Place{i, before.offset};
      }
    }
    const bool whole = !sealed || (i + 1 == damaged.segment && damaged.offset == 0) ||
                       cursor.offset == segments_[i + 1].header.previous_end;
    if (!whole || (!sealed && cursor.offset < damaged.offset)) return Place{i, cursor.offset};
  }
  return damaged;
}

Position Recovery::LostBehind(Place damaged) const {
  std::vector<DamagedSegment> segments;
  for (size_t i = damaged.segment; i < segments_.size(); ++i) {
    DamagedSegment& segment = segments.emplace_back();
    segment.path = PathOf(segments_[i].name);
    auto file = disk_.Open(segment.path, env::OpenMode::kRead);
    if (!file.ok()) continue;
    std::string bytes(kHeaderBytes, '\0');
    const auto read = (*file)->Read(0, bytes);
    if (!read.ok() || *read < kHeaderBytes) continue;
    auto header = DecodeSegmentHeader(bytes);
    if (!header.ok()) continue;
    segment.header = *header;
    segment.seed = SegmentSeed(bytes);
  }
  const Position end = LostEnd(disk_, segments, damaged.offset, votes_->term);
  return mark_.has_value() && !Reaches(end, mark_->last) ? mark_->last : end;
}

// First of all it is made durable that the log had reached further. A crash after that finds the
// damage again, or the new log.
absl::Status Recovery::Cut(const absl::Status& damage) {
  Place place;
  if (const auto found = DamageOf(damage); found.has_value()) {
    for (size_t i = 0; i < segments_.size(); ++i) {
      if (PathOf(segments_[i].name) == found->file) place = {i, found->offset};
    }
  }
  CONCLAVE_ASSIGN_OR_RETURN(place, ReplayBefore(place));
  if (base_.index > snapshot_.index || term_at_snapshot_ != snapshot_.term) entries_.clear();
  if (!may_cut_(entries_)) return damage;
  if (!votes_.has_value()) {
    const std::string votes = votes_damage_.ok() ? Concat(Where(kVoteName), " is missing")
                                                 : std::string(votes_damage_.message());
    return absl::DataLossError(Concat(damage.message(), "; and ", votes,
                                      ", so that this member does not know its votes either. "
                                      "Remove this member and its directory, and add a new one"));
  }
  votes_->term = std::max(votes_->term, hard_state_.term);
  const Position lost = LostBehind(place);
  if (!Reaches(votes_->lost, lost)) votes_->lost = lost;
  votes_->term = std::max(votes_->term, lost.term) + 1;
  votes_->vote = {};
  CONCLAVE_ASSIGN_OR_RETURN(log_->votes_, VoteFile::Open(disk_, options_, *votes_));
  const raft::Index last = entries_.empty() ? snapshot_.index : entries_.back().index;
  hard_state_ = {.term = votes_->term, .vote = {}, .commit = std::min(hard_state_.commit, last)};
  return StartAnew();
}

// A new log behind the snapshot, its sequence apart from the old one's: whichever of them a crash
// leaves, only the later one counts.
absl::Status Recovery::StartAnew() {
  log_->segments_.clear();
  log_->next_sequence_ = segments_.back().parsed.sequence + 2;
  log_->base_ = snapshot_.index;
  log_->last_ = snapshot_;
  log_->hard_state_ = {.term = hard_state_.term, .vote = {}, .commit = {}};
  CONCLAVE_RETURN_IF_ERROR(log_->StartSegment());
  std::span<const raft::Entry> rest = entries_;
  do {
    size_t count = 0;
    for (uint64_t bytes = 0; count < rest.size() && bytes < kRewriteBytes; ++count) {
      bytes += rest[count].payload.size();
    }
    CONCLAVE_RETURN_IF_ERROR(log_->Append(
        LogBatch{.reset = {}, .hard_state = hard_state_, .entries = rest.first(count)}));
    CONCLAVE_RETURN_IF_ERROR(log_->Sync());
    rest = rest.subspan(count);
  } while (!rest.empty());
  CONCLAVE_RETURN_IF_ERROR(log_->MarkSynced());
  return SetAside();
}

// Keeps what was damaged, for whoever wants to know why; of an earlier time no longer.
absl::Status Recovery::SetAside() {
  CONCLAVE_ASSIGN_OR_RETURN(const auto names, disk_.List(kDirectory));
  for (const std::string& name : names) {
    if (name.ends_with(kDamagedSuffix)) CONCLAVE_RETURN_IF_ERROR(disk_.Remove(PathOf(name)));
  }
  const uint64_t first_new = segments_.back().parsed.sequence + 2;
  for (const std::string& name : names) {
    const auto parsed = ParseSegmentName(name);
    if (!parsed.has_value() || parsed->sequence >= first_new) continue;
    CONCLAVE_RETURN_IF_ERROR(disk_.Rename(PathOf(name), Concat(PathOf(name), kDamagedSuffix)));
  }
  return disk_.SyncDirectory(kDirectory);
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
  // The segment first: a file of votes without a log is a log that was lost.
  CONCLAVE_RETURN_IF_ERROR(log_->StartSegment());
  return OpenVotes();
}

absl::StatusOr<Recovered> Recovery::Run() {
  CONCLAVE_CHECK(options_.segment_bytes >= kSegmentBytesMin &&
                     options_.segment_bytes <= kSegmentBytesMax &&
                     options_.segment_bytes % kPageBytes == 0,
                 "segments of ", options_.segment_bytes, " bytes");
  CONCLAVE_RETURN_IF_ERROR(RefuseForeign());
  CONCLAVE_RETURN_IF_ERROR(List());
  const bool existed = !segments_.empty();
  std::string damage;
  const absl::Status read = existed ? Read() : absl::OkStatus();
  if (!read.ok() && (!absl::IsDataLoss(read) || !may_cut_)) return read;
  CONCLAVE_RETURN_IF_ERROR(ReadVotes());
  if (!read.ok()) {
    CONCLAVE_RETURN_IF_ERROR(Cut(read));
    damage = std::string(read.message());
  } else if (existed) {
    CONCLAVE_RETURN_IF_ERROR(RemoveLeftovers());
    CONCLAVE_RETURN_IF_ERROR(OpenVotes());
    CONCLAVE_RETURN_IF_ERROR(RepairTail());
    CONCLAVE_RETURN_IF_ERROR(JoinSnapshot());
  } else {
    CONCLAVE_RETURN_IF_ERROR(RemoveLeftovers());
    CONCLAVE_RETURN_IF_ERROR(Create());
  }
  const Position lost = log_->votes_->vote().lost;
  return Recovered{.log = std::move(log_),
                   .hard_state = hard_state_,
                   .entries = std::move(entries_),
                   .existed = existed,
                   .torn_bytes = torn_bytes_,
                   .lost = lost,
                   .damage = std::move(damage)};
}

absl::Status Recovery::CheckOwner() {
  absl::Status status = RefuseForeign();
  if (status.ok()) status = List();
  if (status.ok() && !segments_.empty()) status = ReadHeader(&segments_.back());
  // Without the lock, files may come and go meanwhile.
  return absl::IsDataLoss(status) || absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status Log::CheckOwner(env::Disk& disk, const Options& options) {
  return Recovery(&disk, options, {}, nullptr).CheckOwner();
}

absl::StatusOr<Recovered> Log::Recover(env::Disk& disk, const Options& options, Position snapshot,
                                       const MayCut& may_cut) {
  return Recovery(&disk, options, snapshot, may_cut).Run();
}

absl::StatusOr<bool> Log::Exists(env::Disk& disk) {
  auto names = disk.List(kDirectory);
  if (absl::IsNotFound(names.status())) return false;
  CONCLAVE_RETURN_IF_ERROR(names.status());
  return std::any_of(names->begin(), names->end(),
                     [](const std::string& name) { return ParseSegmentName(name).has_value(); });
}

}  // namespace conclave::wal
