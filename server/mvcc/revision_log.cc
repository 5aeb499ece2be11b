#include "conclave/server/mvcc/revision_log.h"

#include <algorithm>
#include <iterator>

#include "conclave/base/check.h"

namespace conclave::mvcc {

RevisionLog::~RevisionLog() {
  for (const Segment& segment : segments_) {
    for (const Record* record : segment.records) RecordRef::Drop(record);
  }
}

void RevisionLog::Append(const Record* record) {
  const Revision revision = record->revision();
  if (segments_.empty() || segments_.back().records.size() >= kSegmentRecords) {
    CONCLAVE_CHECK(segments_.empty() || segments_.back().records.back()->revision() < revision);
    segments_.push_back({.first = revision, .records = {}});
    // The first segment of a small store need not cost a full one.
    if (segments_.size() > 1) segments_.back().records.reserve(kSegmentRecords);
  } else {
    CONCLAVE_CHECK(segments_.back().records.back()->revision() < revision);
  }
  segments_.back().records.push_back(RecordRef(record).Release());
  ++size_;
}

RevisionLog::Position RevisionLog::Seek(Revision from) const {
  auto behind = std::upper_bound(
      segments_.begin(), segments_.end(), from,
      [](Revision revision, const Segment& segment) { return revision < segment.first; });
  if (behind == segments_.begin()) return {.segment = 0, .record = 0};
  const Segment& segment = *std::prev(behind);
  const size_t record = SeekInSegment(segment, from);
  const size_t index = static_cast<size_t>(std::prev(behind) - segments_.begin());
  if (record == segment.records.size()) return {.segment = index + 1, .record = 0};
  return {.segment = index, .record = record};
}

// Looking at a record is a cache miss, so guess from the revision first: revisions mostly count up
// by one record, and what compaction leaves is spread evenly. Then gallop from the guess, then
// halve.
size_t RevisionLog::SeekInSegment(const Segment& segment, Revision from) {
  const auto& records = segment.records;
  const int64_t first = segment.first.main;
  const int64_t last = records.back()->mod_revision();
  if (from <= segment.first) return 0;
  if (from > records.back()->revision()) return records.size();
  size_t guess = 0;
  if (last > first) {
    const double part = static_cast<double>(from.main - first) / static_cast<double>(last - first);
    guess = static_cast<size_t>(part * static_cast<double>(records.size() - 1));
  }
  // Invariant: records[low] < from <= records[high].
  size_t low = 0;
  size_t high = records.size() - 1;
  size_t step = 1;
  if (records[guess]->revision() < from) {
    low = guess;
    while (low + step < high && records[low + step]->revision() < from) {
      low += step;
      step *= 2;
    }
    high = std::min(high, low + step);
  } else {
    high = guess;
    while (high > step && records[high - step]->revision() >= from) {
      high -= step;
      step *= 2;
    }
    low = high > step ? high - step : 0;
  }
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (records[middle]->revision() < from ? low : high) = middle;
  }
  return high;
}

const Record* RevisionLog::First(Revision from) const {
  const Position position = Seek(from);
  if (position.segment == segments_.size()) return nullptr;
  return segments_[position.segment].records[position.record];
}

void RevisionLog::Remove(Revision revision) {
  const Position position = Seek(revision);
  CONCLAVE_CHECK(position.segment < segments_.size());
  Segment& segment = segments_[position.segment];
  const auto at = segment.records.begin() + static_cast<ptrdiff_t>(position.record);
  const Record* record = *at;
  CONCLAVE_CHECK(record->revision() == revision);
  segment.records.erase(at);
  --size_;
  if (segment.records.empty()) {
    segments_.erase(segments_.begin() + static_cast<ptrdiff_t>(position.segment));
  } else {
    if (position.record == 0) segment.first = segment.records.front()->revision();
    JoinIfSmall(position.segment);
  }
  RecordRef::Drop(record);
}

// Keeps neighbours above half a segment together, and vectors no larger than twice their content.
// Looks only when a segment passes a power of two, so that the cost of a removal stays constant on
// average.
void RevisionLog::JoinIfSmall(size_t index) {
  const size_t size = segments_[index].records.size();
  if ((size & (size - 1)) != 0 || size > kSegmentRecords / 2) return;
  if (index + 1 == segments_.size()) return;  // still being appended to
  const auto join = [&](size_t left) {
    auto& into = segments_[left].records;
    auto& from = segments_[left + 1].records;
    if (into.size() + from.size() > kSegmentRecords * 3 / 4) return false;
    std::vector<const Record*> both;
    both.reserve(into.size() + from.size());
    both.insert(both.end(), into.begin(), into.end());
    both.insert(both.end(), from.begin(), from.end());
    into = std::move(both);
    segments_.erase(segments_.begin() + static_cast<ptrdiff_t>(left) + 1);
    return true;
  };
  if (index > 0 && join(index - 1)) return;
  if (index + 2 < segments_.size() && join(index)) return;
  segments_[index].records.shrink_to_fit();
}

void RevisionLog::CheckInvariants() const {
  size_t size = 0;
  Revision last{.main = -1, .sub = 0};
  for (const Segment& segment : segments_) {
    CONCLAVE_CHECK(!segment.records.empty() && segment.records.size() <= kSegmentRecords);
    CONCLAVE_CHECK(segment.first == segment.records.front()->revision());
    for (const Record* record : segment.records) {
      CONCLAVE_CHECK(last < record->revision());
      last = record->revision();
    }
    size += segment.records.size();
  }
  CONCLAVE_CHECK(size == size_);
}

}  // namespace conclave::mvcc
