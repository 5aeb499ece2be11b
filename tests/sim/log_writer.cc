#include "conclave/tests/sim/log_writer.h"

#include <utility>
#include <vector>

namespace conclave::sim {
namespace {

// As the log thread has them.
constexpr Duration kSpareRetry = std::chrono::seconds(1);
constexpr Duration kSpaceCheckInterval = std::chrono::seconds(1);
constexpr uint64_t kFullPart = 4;
constexpr uint64_t kTightSegments = 4;
constexpr uint64_t kEntryOverheadBytes = 32;
constexpr uint64_t kWriteOverheadBytes = 128;

}  // namespace

LogWriter::LogWriter(Schedule* schedule, Prng* prng, std::unique_ptr<wal::Log> log,
                     Callbacks callbacks)
    : schedule_(schedule), prng_(prng), log_(std::move(log)), callbacks_(std::move(callbacks)) {}

void LogWriter::After(Duration time, void (LogWriter::*act)()) {
  schedule_->After(time, [this, act, alive = std::weak_ptr<char>(alive_)] {
    if (!alive.expired() && !failed_) (this->*act)();
  });
}

bool LogWriter::Ok(const absl::Status& status) {
  if (status.ok() || failed_) return !failed_;
  failed_ = true;
  callbacks_.failed(status);
  return false;
}

void LogWriter::Start() {
  CheckSpace();
  PrepareSpare();
}

void LogWriter::Append(node::LogAppend append) {
  queue_.push_back(std::move(append));
  StartWrite();
}

// What goes into one write: a part of a segment, as with real sizes.
size_t LogWriter::Group(uint64_t* bytes) const {
  size_t count = 0;
  for (; count < queue_.size() && (count == 0 || *bytes < log_->segment_bytes() / 4); ++count) {
    *bytes += kWriteOverheadBytes + kEntryOverheadBytes * queue_[count].entries.size();
    for (const raft::Entry& entry : queue_[count].entries) *bytes += entry.payload.size();
  }
  return count;
}

void LogWriter::StartWrite() {
  if (failed_ || writing_ || waits_for_room_ || queue_.empty()) return;
  uint64_t bytes = 0;
  const size_t count = Group(&bytes);
  if (!HasRoom(bytes)) return;
  writing_ = true;
  std::vector<wal::LogBatch> batches;
  for (size_t i = 0; i < count; ++i) {
    const node::LogAppend& append = queue_[i];
    wal::LogBatch batch;
    if (append.reset.has_value()) batch.reset = {append.reset->index, append.reset->term};
    batch.hard_state = append.hard_state;
    batch.entries = append.entries;
    batches.push_back(batch);
  }
  if (!Ok(log_->Append(batches))) return;
  written_batch_ = queue_[count - 1].batch;
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  After(callbacks_.sync_time(), &LogWriter::EndWrite);
}

// Whoever waits for these entries waits until somebody makes room.
bool LogWriter::HasRoom(uint64_t bytes) {
  const absl::Status room = log_->EnsureRoom(bytes);
  if (!absl::IsResourceExhausted(room)) return Ok(room);
  waits_for_room_ = true;
  spare_failed_ = true;
  next_space_check_ = {};
  CheckSpace();
  After(kSpareRetry, &LogWriter::WaitedForRoom);
  return false;
}

void LogWriter::WaitedForRoom() {
  waits_for_room_ = false;
  StartWrite();
}

void LogWriter::EndWrite() {
  if (!Ok(log_->Sync())) return;
  writing_ = false;
  callbacks_.synced(written_batch_);
  Rest();
  StartWrite();
}

void LogWriter::Rest() {
  if (truncate_.has_value()) {
    const raft::Index index = *std::exchange(truncate_, std::nullopt);
    if (!Ok(log_->TruncatePrefix(index))) return;
  }
  PrepareSpare();
  CheckSpace();
  if (!failed_ && queue_.empty() && prng_->Chance(1, 2)) Ok(log_->MarkSynced());
}

void LogWriter::PrepareSpare() {
  if (failed_ || spare_under_way_) return;
  if (spare_failed_ && schedule_->now() < spare_not_before_) return;
  const bool spare = log_->BeginSpare();
  if (!spare && !log_->BeginReserve()) {
    spare_failed_ = false;  // neither is missing
    return;
  }
  spare_under_way_ = true;
  reserve_is_made_ = !spare;
  After(callbacks_.sync_time(), &LogWriter::EndSpare);
}

void LogWriter::EndSpare() {
  const absl::Status made = reserve_is_made_
                                ? wal::Log::MakeReserve(log_->disk(), log_->segment_bytes())
                                : wal::Log::MakeSpare(log_->disk(), log_->segment_bytes());
  spare_under_way_ = false;
  reserve_is_made_ ? log_->EndReserve(made.ok()) : log_->EndSpare(made.ok());
  if (!absl::IsResourceExhausted(made) && !Ok(made)) return;
  spare_failed_ = !made.ok();
  spare_not_before_ = schedule_->now() + kSpareRetry;
  next_space_check_ = {};
  PrepareSpare();
  CheckSpace();
}

void LogWriter::CheckSpace() {
  const Instant now = schedule_->now();
  if (failed_ || now < next_space_check_) return;
  next_space_check_ = now + kSpaceCheckInterval;
  const auto free = log_->disk().FreeSpace();
  if (!free.ok()) return;
  const uint64_t segment = log_->segment_bytes();
  // At the start nobody knows whether it was full before.
  const bool was_enough = space_.has_value() && space_ != Space::kFull;
  const uint64_t full_below = was_enough ? segment / kFullPart : segment;
  const Space space = spare_failed_ || free->free_bytes < full_below ? Space::kFull
                      : free->free_bytes < kTightSegments * segment  ? Space::kTight
                                                                     : Space::kEnough;
  if (space != Space::kEnough && !std::exchange(tick_planned_, true)) {
    After(kSpareRetry, &LogWriter::Tick);
  }
  if (space_ == space) return;
  space_ = space;
  callbacks_.space({.full = space == Space::kFull, .tight = space == Space::kTight});
}

// While room is short nobody else may come by.
void LogWriter::Tick() {
  tick_planned_ = false;
  next_space_check_ = {};
  if (!waits_for_room_) PrepareSpare();
  CheckSpace();
}

}  // namespace conclave::sim
