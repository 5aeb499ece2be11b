// RaftLog: the entries in memory, behind the point of compaction, and the marks that move along
// them.
//
//     base          first_index                                            last_index
//       |  compacted    |                                                      |
//   ----+---------------+--------------------+---------------+-----------------+
//                            applied <= handed_out <= commit
//                                     stable <= written
//
// base is the last entry that is gone; its term is still known, so that an append right behind it
// can be checked. stable: durable in the local log; written: given to the disk. The two lines are
// independent: a leader commits what a quorum has, which may be ahead of its own disk.
//
// Entries are contiguous in memory, so that a slice for a peer is one copy of a range; payloads are
// shared.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "conclave/server/raft/types.h"

namespace conclave::raft {

class RaftLog {
 public:
  // An entry's position: where it stands and of which term it is.
  struct Position {
    Index index;
    Term term;
    friend bool operator==(const Position&, const Position&) = default;
  };

  // `entries` follow `base`.
  RaftLog(Position base, std::vector<Entry> entries);

  Index first_index() const { return base_.index + 1; }
  Index last_index() const { return base_.index + size(); }
  Position last() const { return {last_index(), *TermAt(last_index())}; }
  Index base_index() const { return base_.index; }
  // nullopt: compacted away, or beyond the last entry.
  std::optional<Term> TermAt(Index index) const;
  bool Contains(Position position) const { return TermAt(position.index) == position.term; }
  const Entry& At(Index index) const;
  // The entries from .. to, both included and in memory; empty if to < from.
  std::span<const Entry> Slice(Index from, Index to) const;
  // The longest slice of from .. to whose payloads have `max_bytes` in sum, yet one entry at least;
  // empty if to < from.
  struct Portion {
    std::span<const Entry> entries;
    uint64_t bytes = 0;
  };
  Portion Limited(Index from, Index to, uint64_t max_bytes) const;

  // Thesis 3.6.1: "at least as up-to-date".
  bool IsUpToDate(Position candidate) const { return IsUpToDate(candidate, last()); }
  static bool IsUpToDate(Position candidate, Position mine);
  bool Reaches(Position end) const { return IsUpToDate(last(), end); }

  // The largest index at or below `position` whose term is not above position's: beyond it, the two
  // logs cannot agree. Index 0 with term 0 if even the base's term is above.
  //
  //     this log   1 1 1 2 2 2 3     position (7, term 2)  -> (6, term 2)
  //                                  position (9, term 3)  -> (7, term 3)
  Position LargestAgreement(Position position) const;

  // The leader's own append, right behind the last entry.
  void Append(Entry entry);
  // Drops the entries from `index` on. They are not committed (CHECK).
  void TruncateFrom(Index index);
  // Drops the entries up to `index`.
  void CompactTo(Index index);
  // Drops everything; the log starts anew behind `base`.
  void ResetTo(Position base);

  // The marks. Each only moves forward, but for stable and written when the tail is dropped.
  Index commit() const { return commit_; }
  Index handed_out() const { return handed_out_; }
  Index applied() const { return applied_; }
  Index stable() const { return stable_; }
  Index written() const { return written_; }
  // True if the commit index has moved.
  bool CommitTo(Index index);
  void HandOutTo(Index index);
  void ApplyTo(Index index);
  void StableTo(Index index);
  void WriteTo(Index index);

 private:
  size_t size() const { return entries_.size() - begin_; }
  size_t Offset(Index index) const;

  Position base_;
  std::vector<Entry> entries_;  // from begin_ on; what is before has been compacted away
  size_t begin_ = 0;
  Index commit_;
  Index handed_out_;
  Index applied_;
  Index stable_;
  Index written_;
};

}  // namespace conclave::raft
