#include "conclave/server/raft/log.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::raft {

RaftLog::RaftLog(Position base, std::vector<Entry> entries)
    : base_(base), entries_(std::move(entries)) {
  Position before = base;
  for (const Entry& entry : entries_) {
    CONCLAVE_CHECK(entry.index == before.index + 1, "a gap in the restored log before ",
                   entry.index.value());
    CONCLAVE_CHECK(entry.term >= before.term, "terms fall in the restored log at ",
                   entry.index.value());
    before = {entry.index, entry.term};
  }
  commit_ = handed_out_ = applied_ = base.index;
  stable_ = written_ = last_index();
}

size_t RaftLog::Offset(Index index) const {
  CONCLAVE_CHECK(index > base_.index && index <= last_index(), "index ", index.value(),
                 " is not in memory: ", base_.index.value(), " .. ", last_index().value());
  return begin_ + (index - base_.index) - 1;
}

std::optional<Term> RaftLog::TermAt(Index index) const {
  if (index == base_.index) return base_.term;
  if (index < base_.index || index > last_index()) return std::nullopt;
  return entries_[Offset(index)].term;
}

const Entry& RaftLog::At(Index index) const { return entries_[Offset(index)]; }

std::span<const Entry> RaftLog::Slice(Index from, Index to) const {
  if (to < from) return {};
  const size_t begin = Offset(from);
  return std::span<const Entry>(entries_).subspan(begin, Offset(to) + 1 - begin);
}

RaftLog::Portion RaftLog::Limited(Index from, Index to, uint64_t max_bytes) const {
  const std::span<const Entry> all = Slice(from, to);
  uint64_t bytes = 0;
  size_t count = 0;
  for (const Entry& entry : all) {
    if (count > 0 && bytes + entry.payload.size() > max_bytes) break;
    bytes += entry.payload.size();
    ++count;
  }
  return {all.first(count), bytes};
}

bool RaftLog::IsUpToDate(Position candidate, Position mine) {
  return candidate.term > mine.term ||
         (candidate.term == mine.term && candidate.index >= mine.index);
}

RaftLog::Position RaftLog::LargestAgreement(Position position) const {
  Index index = std::min(position.index, last_index());
  while (index >= base_.index) {
    const Term term = *TermAt(index);
    if (term <= position.term) return {index, term};
    if (index.value() == 0) break;
    index = index - 1;
  }
  return {};
}

void RaftLog::Append(Entry entry) {
  const Position before = last();
  CONCLAVE_CHECK(entry.index == before.index + 1 && entry.term >= before.term, "append of (",
                 entry.index.value(), ", term ", entry.term.value(), ") behind (",
                 before.index.value(), ", term ", before.term.value(), ")");
  entries_.push_back(std::move(entry));
}

void RaftLog::TruncateFrom(Index index) {
  CONCLAVE_CHECK(index > commit_, "committed entries from ", index.value(),
                 " on would be replaced; commit is ", commit_.value());
  entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(Offset(index)), entries_.end());
  stable_ = std::min(stable_, last_index());
  written_ = std::min(written_, last_index());
}

void RaftLog::CompactTo(Index index) {
  if (index <= base_.index) return;
  CONCLAVE_CHECK(index <= handed_out_ && index <= stable_,
                 "compaction of what is still needed: ", index.value());
  const Term term = *TermAt(index);
  const size_t end = Offset(index) + 1;
  // The memory of the payloads is freed now, that of the entries when it is worth moving the
  // others.
  for (size_t at = begin_; at < end; ++at) entries_[at].payload = Bytes();
  begin_ = end;
  base_ = {index, term};
  if (begin_ > entries_.size() / 2) {
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(begin_));
    begin_ = 0;
  }
}

void RaftLog::ResetTo(Position base) {
  CONCLAVE_CHECK(base.index >= commit_, "a reset to before what is committed");
  entries_.clear();
  begin_ = 0;
  base_ = base;
  commit_ = handed_out_ = applied_ = stable_ = written_ = base.index;
}

bool RaftLog::CommitTo(Index index) {
  if (index <= commit_) return false;
  CONCLAVE_CHECK(index <= last_index(), "commit index ", index.value(),
                 " is beyond the last entry ", last_index().value(),
                 ": has this member lost its log?");
  commit_ = index;
  return true;
}

void RaftLog::HandOutTo(Index index) {
  CONCLAVE_CHECK(index >= handed_out_ && index <= commit_);
  handed_out_ = index;
}

void RaftLog::ApplyTo(Index index) {
  if (index <= applied_) return;
  CONCLAVE_CHECK(index <= handed_out_, "applied ", index.value(), ", which was not given out");
  applied_ = index;
}

void RaftLog::StableTo(Index index) {
  if (index <= stable_) return;
  CONCLAVE_CHECK(index <= written_);
  stable_ = index;
}

void RaftLog::WriteTo(Index index) {
  CONCLAVE_CHECK(index >= written_ && index <= last_index());
  written_ = index;
}

}  // namespace conclave::raft
