// The log on disk: what a member has promised to remember.
//
// How it works, in short (bytes and offsets: format.h and docs/formats.md):
//
//   wal/0000000000000001-0000000000000001.log    segment 1: header, record, record, ... , zeros
//   wal/0000000000000002-0000000000004e21.log    segment 2; its first entry has index 0x4e21
//   wal/spare                                    the next segment, preallocated
//   wal/reserve                                  another one, for a disk that is full
//   wal/vote                                     term and vote, once more (vote_file.h)
//
// - One record holds one LogBatch: an optional hard state and entries, all or nothing by one CRC.
// - All records written between two syncs are one *sync batch*. Batch k+1 is written only after
// batch k is synced, and
//   every record says where its sync batch starts. So the first bad record is a torn tail only if
//   no valid record of a later sync batch stands behind it, and if a crash can have torn it so,
//   which in a segment that held zeros before is legible (damage.h): then it is cut off. Otherwise
//   it is rot of acknowledged data, and recovery fails with DataLoss that says which file, offset
//   and indices (DamageOf), unless others can repair it.
// - If they can, recovery sets the damaged log aside, keeps in a new one what was legible before
//   the damage, and remembers in wal/vote how far the log had reached. A member must not stand for
//   election, nor vote by the log that it has left, until it has reached there again.
// - The proof that the very last batch was synced is the first record of the next one. MarkSynced
// writes it early,
//   as an empty record and without a sync, when there is nothing else to do.
// - A segment's header is synced before the segment becomes visible, and seals its predecessor: it
// repeats where that ends and
//   the CRC of its last record.
// - The CRC of a record is seeded by its segment's header and its own offset, so that stale bytes
// of a reused file, or of
//   another place, never match.
// - After a failed Sync the page cache may show bytes that the disk does not have. Recovery
// therefore trusts nothing that
//   lacks the proof: it writes the last sync batch again from the start of its page, turns all that
//   follows to zeros, and syncs, before it returns.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/raft/types.h"

namespace conclave::wal {

// The directory of the log, below the root of the disk.
inline constexpr std::string_view kDirectory = "wal";

// A segment of 16 MB keeps a new member small, and is filled in a second or more at 50,000 entries
// a second.
inline constexpr uint64_t kSegmentBytesDefault = uint64_t{16} << 20;
inline constexpr uint64_t kSegmentBytesMin = uint64_t{8} << 10;
inline constexpr uint64_t kSegmentBytesMax = uint64_t{1} << 30;
// Of one LogBatch, encoded. A larger batch than a segment makes its segment longer.
inline constexpr uint64_t kRecordBytesMax = uint64_t{256} << 20;

struct Options {
  uint64_t cluster_id = 0;
  raft::NodeId member_id;
  uint64_t segment_bytes = kSegmentBytesDefault;
};

// A place in the log. Index 0: before its first entry.
struct Position {
  raft::Index index;
  raft::Term term;

  friend bool operator==(const Position&, const Position&) = default;
};

// What must become durable together, in this order.
struct LogBatch {
  // The log starts anew behind this snapshot, which is durable already; whatever stands in it is
  // void.
  std::optional<Position> reset;
  std::optional<raft::HardState> hard_state;
  // Consecutive. If the first one's index is not above the log's last one, it replaces the tail.
  std::span<const raft::Entry> entries;
};

// Acknowledged data that is no longer readable. The indices are bounds: entries in [first, last]
// may be concerned; last is 0 if what stood there at the end of the log is unknown. To be repaired
// from a peer; this member must not vote until then.
struct Damage {
  std::string file;
  uint64_t offset = 0;
  raft::Index first;
  raft::Index last;
};

// The damage behind a DataLoss status of Log::Recover, if it has that form.
[[nodiscard]] std::optional<Damage> DamageOf(const absl::Status& status);

class Log;
class VoteFile;

// Asked when the log is damaged, before anything is changed: may it be cut down to these entries
// behind the snapshot? To be answered with yes only if other members have what is lost.
using MayCut = std::function<bool(std::span<const raft::Entry> left)>;

struct Recovered {
  std::unique_ptr<Log> log;  // ready to append
  raft::HardState hard_state;
  std::vector<raft::Entry> entries;  // those behind the snapshot, consecutive from its index + 1 on
  bool existed = false;              // false: the log was created just now
  uint64_t torn_bytes = 0;           // of an unfinished write, cut off: never acknowledged
  // How far the log had reached before it was damaged, now or in an earlier life; it may be short
  // of that still. Index 0: it never was.
  Position lost;
  std::string damage;  // what was found now and repaired by cutting; empty: nothing
};

// The writer. Thread: one; it has no thread of its own. Memory: O(1), plus a list of the segments'
// names. Invariant: whatever precedes the last successful Sync is found again by Recover, byte for
// byte, or Recover fails. After an error of Append, Sync or MarkSynced the log is unusable: the
// process must end (checked).
class Log {
 public:
  ~Log();

  // True if the disk holds a log: its member has been here before.
  [[nodiscard]] static absl::StatusOr<bool> Exists(env::Disk& disk);

  // Says whether Recover would refuse the directory as somebody else's: FailedPrecondition, as
  // there. Reads names and one header, writes nothing; damage is left for Recover to judge.
  [[nodiscard]] static absl::Status CheckOwner(env::Disk& disk, const Options& options);

  // Reads and verifies everything behind the snapshot, repairs a torn tail, and opens the log for
  // appending; creates it if there is none. `disk` must outlive the log and be locked by the
  // caller.
  //
  // - FailedPrecondition: the directory belongs to another cluster, member or program, or to a
  // newer
  //   version of this one.
  // - DataLoss: acknowledged data is damaged or missing (see DamageOf); nothing has been changed.
  //   With `may_cut` saying yes, the log is cut instead, the term is raised by one so that nothing
  //   that was promised before can be mixed up with what is promised from now on, and
  //   Recovered::damage says so. DataLoss then means that the votes are lost too.
  //
  // Entries that do not continue the snapshot (another term at its index, or none) are void, and
  // the log starts anew behind it.
  [[nodiscard]] static absl::StatusOr<Recovered> Recover(env::Disk& disk, const Options& options,
                                                         Position snapshot,
                                                         const MayCut& may_cut = nullptr);

  // Writes the batches with one gathered write; they are durable after Sync. CHECKs that entries
  // are consecutive.
  [[nodiscard]] absl::Status Append(std::span<const LogBatch> batches);
  [[nodiscard]] absl::Status Append(const LogBatch& batch) {
    return Append(std::span<const LogBatch>(&batch, 1));
  }

  // Makes all that was appended durable. Ends a sync batch.
  [[nodiscard]] absl::Status Sync();

  // Leaves the proof that the last sync batch was synced, where there is none yet. Cheap: one small
  // write, no sync. Call it when idle, after Sync.
  [[nodiscard]] absl::Status MarkSynced();

  // Removes segments that hold no entry above `index`. One of them may become the spare.
  [[nodiscard]] absl::Status TruncatePrefix(raft::Index index);

  // ---- The spare segment. Without one, Append prepares a segment when it needs it, which takes
  // some ten milliseconds. To spare it that:
  //
  //   if (log.BeginSpare()) log.EndSpare(wal::Log::MakeSpare(disk, log.segment_bytes()).ok());

  // True if a spare should be made now: there is none, and the segment is half full. Then EndSpare
  // must follow.
  [[nodiscard]] bool BeginSpare();
  // Preallocates the spare; touches nothing else, so that another thread may run it meanwhile.
  // ResourceExhausted: the disk is full, and the log can only write on to the end of its segment.
  [[nodiscard]] static absl::Status MakeSpare(env::Disk& disk, uint64_t segment_bytes);
  void EndSpare(bool made);

  // ---- The reserve: one more segment, kept for the day when the disk is full and no spare can be
  // made. Made like the spare, and only if that is not due.
  [[nodiscard]] bool BeginReserve();
  [[nodiscard]] static absl::Status MakeReserve(env::Disk& disk, uint64_t segment_bytes);
  void EndReserve(bool made);

  // Sees to it that the next `bytes` can be appended. ResourceExhausted: they cannot, the disk is
  // full and everything that was set aside is used up; the log is as usable as before.
  [[nodiscard]] absl::Status EnsureRoom(uint64_t bytes);

  // ---- Figures.

  [[nodiscard]] raft::Index last_index() const { return last_.index; }
  [[nodiscard]] uint64_t segment_bytes() const { return options_.segment_bytes; }
  [[nodiscard]] uint64_t segment_count() const { return segments_.size(); }
  // Bytes that can still be written before a new segment is needed.
  [[nodiscard]] uint64_t remaining_bytes() const;
  [[nodiscard]] env::Disk& disk() { return *disk_; }

 private:
  friend class Recovery;

  struct Segment {
    uint64_t sequence = 0;
    raft::Index first;  // of its first entry, as its name says
    std::string name;
  };

  Log(env::Disk* disk, const Options& options);

  // A preallocated file that waits to become a segment. kUsed: it was one, and shows older records.
  enum class SetAside : uint8_t { kNone, kUnderWay, kUsed, kZeroed };
  static bool IsReady(SetAside file) { return file >= SetAside::kUsed; }

  // Creates the next segment, sealing the present one, and goes on writing there.
  [[nodiscard]] absl::Status StartSegment();
  // What a segment can begin in without asking the disk for room, or ResourceExhausted.
  [[nodiscard]] absl::Status EnsureNextSegment();
  [[nodiscard]] absl::Status Grow(uint64_t bytes);
  // Appends the record of one batch to pieces_; its fixed part goes to `out`.
  void Encode(const LogBatch& batch, uint64_t record_bytes, char* out);
  // Takes over what the batch says about the end of the log; CHECKs that it fits to it.
  void Follow(const LogBatch& batch);
  [[nodiscard]] absl::Status Failed(absl::Status status);
  // Writes down the last one of the batches' votes, if it is another than the last.
  [[nodiscard]] absl::Status KeepVotes(std::span<const LogBatch> batches);

  env::Disk* const disk_;
  const Options options_;

  std::unique_ptr<VoteFile> votes_;
  std::deque<Segment> segments_;  // oldest first; the last one is written to
  uint64_t next_sequence_ = 1;
  std::unique_ptr<env::File> file_;
  uint32_t seed_ = 0;          // of the CRCs in this segment
  uint64_t end_ = 0;           // where the next record goes
  uint64_t size_ = 0;          // preallocated
  uint32_t last_crc_ = 0;      // of the last record in this segment; 0: none yet
  uint64_t sync_batch_ = 1;    // number of the batch that is being written
  uint64_t batch_start_ = 0;   // where it starts in this segment
  bool unsynced_ = false;      // something of it has been appended
  bool marked_ = false;        // its first record is there already
  bool last_is_mark_ = false;  // the last record is a proof, and nothing else
  SetAside spare_ = SetAside::kNone;
  SetAside reserve_ = SetAside::kNone;
  SetAside next_ = SetAside::kNone;  // EnsureRoom has made the next segment
  bool failed_ = false;

  raft::Index base_;  // entries at or below it are not in the log
  Position last_;     // of the log
  raft::HardState hard_state_;

  std::string heads_;                     // reused between appends
  std::vector<std::string_view> pieces_;  // the same
};

}  // namespace conclave::wal
