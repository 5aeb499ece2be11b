#include "conclave/server/wal/damage.h"

#include <algorithm>
#include <limits>

namespace conclave::wal {
namespace {

constexpr raft::Index kBeyondEverything{std::numeric_limits<uint64_t>::max()};

// Where the next legible head of a record stands.
uint64_t NextHead(std::string_view segment, uint64_t from, uint32_t seed) {
  for (uint64_t at = from; at + kHeadBytes <= segment.size(); at += kAlignment) {
    if (DecodeRecordHead(segment, at, seed).has_value()) return at;
  }
  return segment.size();
}

// All of the file; what the device cannot read is missing.
std::string ReadAll(env::Disk& disk, const std::string& path) {
  auto file = disk.Open(path, env::OpenMode::kRead);
  if (!file.ok()) return "";
  const auto size = (*file)->Size();
  if (!size.ok() || *size > kSegmentBytesMax + kRecordBytesMax) return "";
  std::string content(*size, '\0');
  const auto read = (*file)->Read(0, content);
  content.resize(read.ok() ? *read : 0);
  return content;
}

// What is known of the log's end so far. Nullopt: an entry may stand there that nobody can read.
struct End {
  std::optional<raft::Index> index;
  std::optional<raft::Term> term;

  void Set(Position position) {
    index = position.index;
    term = position.term;
  }
};

void Follow(const Record& record, End* end) {
  if (const auto reset = record.reset(); reset.has_value()) end->Set(*reset);
  record.ForEachEntry([&](const Record::EntryView& entry) {
    end->Set({.index = entry.index, .term = entry.term});
  });
}

// Goes on from `at`, over what is illegible. `last`: nothing tells where this segment ends.
void Walk(std::string_view segment, uint64_t at, const DamagedSegment& what, bool last, End* end) {
  while (at + kHeadBytes <= segment.size()) {
    if (const auto record = DecodeRecord(segment, at, what.seed); record.has_value()) {
      Follow(*record, end);
      at = record->end;
      continue;
    }
    const auto head = DecodeRecordHead(segment, at, what.seed);
    if (head.has_value() && !head->has(kHasReset)) {
      // Only its head is legible: it says how many entries there were, not of which term.
      if (head->entry_count > 0) {
        end->index = head->first + head->entry_count - 1;
        end->term.reset();
      }
      at = AlignUp(at + kHeadBytes + head->length);
      continue;
    }
    const uint64_t next = NextHead(segment, at + kAlignment, what.seed);
    const bool is_end = last && next == segment.size();
    if (is_end && (!what.header->zeroed || MayBeTorn(segment, at, what.seed))) return;
    *end = {};
    at = next;
  }
}

}  // namespace

bool MayBeTorn(std::string_view segment, uint64_t bad, uint32_t seed) {
  const auto head = DecodeRecordHead(segment, bad, seed);
  const uint64_t end = bad + kHeadBytes + (head.has_value() ? head->length : 0);
  for (uint64_t at = bad; at < end; at = (at / kSectorBytes + 1) * kSectorBytes) {
    const uint64_t sector_end = (at / kSectorBytes + 1) * kSectorBytes;
    if (at >= segment.size()) return true;
    const std::string_view rest = segment.substr(at, sector_end - at);
    if (rest.find_first_not_of('\0') == std::string_view::npos) return true;
  }
  return false;
}

bool Reaches(Position log, Position end) {
  return log.term > end.term || (log.term == end.term && log.index >= end.index);
}

Position LostEnd(env::Disk& disk, std::span<const DamagedSegment> segments, uint64_t offset,
                 raft::Term newest_term) {
  End end;
  for (size_t i = 0; i < segments.size(); ++i) {
    const DamagedSegment& segment = segments[i];
    if (!segment.header.has_value()) {
      end = {};
      continue;
    }
    newest_term = std::max(newest_term, segment.header->hard_state.term);
    // A header says where the log stood before it, whatever is left of that.
    if (i > 0 || offset < kRecordsStart) end.Set(segment.header->last);
    const std::string content = ReadAll(disk, segment.path);
    const uint64_t from = i > 0 ? kRecordsStart : std::max(offset, kRecordsStart);
    const bool last = i + 1 == segments.size();
    if (content.size() < kRecordsStart) end = {};
    Walk(content, from, segment, last, &end);
  }
  return {.index = end.index.value_or(kBeyondEverything),
          .term = end.index.has_value() ? end.term.value_or(newest_term) : newest_term};
}

}  // namespace conclave::wal
