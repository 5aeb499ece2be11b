// RevisionLog: all records in order of (main, sub), in segments of pointers.
//
// Scans from any revision are sequential. Removal (compaction) takes a record out of its segment;
// segments that have become small join their neighbours, so that what compaction leaves costs 8
// bytes a record plus at most as much again. Owner's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "conclave/server/mvcc/record.h"
#include "conclave/server/mvcc/revision.h"

namespace conclave::mvcc {

class RevisionLog {
 public:
  RevisionLog() = default;
  ~RevisionLog();
  RevisionLog(const RevisionLog&) = delete;
  RevisionLog& operator=(const RevisionLog&) = delete;

  // `record` is newer than all others (checked). The log shares it.
  void Append(const Record* record);

  // Drops the log's reference. The record is there (checked).
  void Remove(Revision revision);

  // The first record at or after `from`; null if there is none.
  const Record* First(Revision from) const;

  // Visits the records at or after `from` until `visit` gives false. `visit` must not change the
  // log.
  template <typename Visit>
  void ForEach(Revision from, Visit&& visit) const {
    Position position = Seek(from);
    for (; position.segment < segments_.size(); ++position.segment, position.record = 0) {
      const std::vector<const Record*>& records = segments_[position.segment].records;
      for (; position.record < records.size(); ++position.record) {
        if (position.record + kPrefetch < records.size()) {
          __builtin_prefetch(records[position.record + kPrefetch]);
        }
        if (!visit(*records[position.record])) return;
      }
    }
  }

  size_t size() const { return size_; }
  void CheckInvariants() const;

 private:
  static constexpr size_t kSegmentRecords = 512;
  static constexpr size_t kPrefetch = 6;

  struct Segment {
    Revision first;
    std::vector<const Record*> records;  // never empty; a reference each
  };
  struct Position {
    size_t segment;
    size_t record;
  };

  // The first position at or after `from`; {segments, 0} if there is none.
  Position Seek(Revision from) const;
  static size_t SeekInSegment(const Segment& segment, Revision from);
  void JoinIfSmall(size_t segment);

  std::vector<Segment> segments_;
  size_t size_ = 0;
};

}  // namespace conclave::mvcc
