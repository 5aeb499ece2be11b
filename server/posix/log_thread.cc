#include "conclave/server/posix/log_thread.h"

#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/failpoint.h"

namespace conclave::posix {
namespace {

constexpr std::chrono::seconds kSpareRetry{1};
constexpr std::chrono::seconds kSpaceCheckInterval{1};
// Below this part of a segment the disk counts as full, though the spare may be there.
constexpr uint64_t kFullPart = 4;
// What a LogWrite takes beside its entries' payloads, at most: heads, hard state, padding.
constexpr uint64_t kEntryOverheadBytes = 32;
constexpr uint64_t kWriteOverheadBytes = 128;
// The proof waits until nothing has come for so long: it is for a machine at rest. While writes
// come one by one, each next write proves the one before it, and a proof between them would cost a
// system call per write.
constexpr std::chrono::milliseconds kProofDelay{10};
constexpr int kExitIoError = 74;  // EX_IOERR of sysexits.h

uint64_t PayloadBytes(const LogWrite& write) {
  uint64_t bytes = 0;
  for (const raft::Entry& entry : write.entries) bytes += entry.payload.size();
  return bytes;
}

}  // namespace

void EndOnDiskFailure(const absl::Status& status) {
  const std::string line =
      Concat("conclave: ", status.message(),
             "; the process ends, because what it was to remember may be lost\n");
  // Nothing could be done if that failed.
  static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
  std::_Exit(kExitIoError);
}

LogThread::LogThread(std::unique_ptr<wal::Log> log, Options options)
    : log_(std::move(log)), options_(std::move(options)), thread_([this] { Run(); }) {}

LogThread::~LogThread() {
  stop_asked_.store(true, std::memory_order_release);
  Queue(Stop{});
  thread_.join();
}

void LogThread::Append(LogWrite write) { Queue(std::move(write)); }

void LogThread::TruncatePrefix(raft::Index index) { Queue(Truncate{index}); }

void LogThread::Queue(Item item) {
  if (mailbox_.Put(std::move(item))) bell_.Ring();
}

LogThread::Figures LogThread::figures() const {
  return {.writes = writes_.load(std::memory_order_relaxed),
          .batches = batch_count_.load(std::memory_order_relaxed),
          .wake_ups = wake_ups_.load(std::memory_order_relaxed),
          .segments = segments_.load(std::memory_order_relaxed)};
}

void LogThread::OrFail(const absl::Status& status) {
  if (status.ok()) [[likely]] {
    return;
  }
  options_.failed(status);
  CONCLAVE_CHECK(false, "a log that failed is used on");
}

void LogThread::Run() {
  segments_.store(log_->segment_count(), std::memory_order_relaxed);
  std::vector<Item> items;
  CheckSpace();
  PrepareSpare();
  while (true) {
    mailbox_.TakeAll(&items);
    if (!items.empty()) {
      at_rest_ = false;
      Process(items);
      items.clear();
    } else if (stopping_ && !spare_under_way_) {
      break;
    } else {
      Idle();
    }
  }
  // Leaves the proof behind, durably: after an orderly end nothing is in doubt.
  OrFail(log_->MarkSynced());
  OrFail(log_->Sync());
}

void LogThread::Idle() {
  const bool at_rest = std::exchange(at_rest_, true);
  if (at_rest) OrFail(log_->MarkSynced());
  const bool enough = space_ == Space::kEnough && !spare_failed_;
  const Duration longest = enough ? Duration::max() : Duration(kSpareRetry);
  const bool slept = bell_.Wait(at_rest ? longest : Duration(kProofDelay));
  if (slept && !at_rest) wake_ups_.fetch_add(1, std::memory_order_relaxed);
  if (enough) return;
  PrepareSpare();
  CheckSpace();
}

void LogThread::Process(std::vector<Item>& items) {
  for (size_t i = 0; i < items.size();) i += WriteGroup(std::span(items).subspan(i));
  for (const Item& item : items) {
    if (const auto* truncate = std::get_if<Truncate>(&item)) {
      OrFail(log_->TruncatePrefix(truncate->index));
    } else if (const auto* spare = std::get_if<SpareDone>(&item)) {
      spare_under_way_ = false;
      SpareFinished(*spare);
    } else if (std::holds_alternative<Stop>(item)) {
      stopping_ = true;
    }
  }
  segments_.store(log_->segment_count(), std::memory_order_relaxed);
  PrepareSpare();
  CheckSpace();
}

size_t LogThread::WriteGroup(std::span<Item> items) {
  batches_.clear();
  uint64_t bytes = 0;
  uint64_t last_batch = 0;
  uint64_t overhead = 0;
  size_t taken = 0;
  for (; taken < items.size(); ++taken) {
    const auto* write = std::get_if<LogWrite>(&items[taken]);
    if (write == nullptr) continue;
    const uint64_t write_bytes = PayloadBytes(*write);
    if (!batches_.empty() && bytes + write_bytes > kGroupBytesMax) break;
    bytes += write_bytes;
    last_batch = write->batch;
    overhead += kWriteOverheadBytes + kEntryOverheadBytes * write->entries.size();
    batches_.push_back(
        {.reset = write->reset, .hard_state = write->hard_state, .entries = write->entries});
  }
  if (batches_.empty()) return taken;
  const auto begin = std::chrono::steady_clock::now();
  CONCLAVE_FAILPOINT(raftBeforeSave);
  if (!AwaitRoom(bytes + overhead)) return taken;
  OrFail(log_->Append(batches_));
  CONCLAVE_FAILPOINT(walBeforeSync);
  OrFail(log_->Sync());
  CONCLAVE_FAILPOINT(walAfterSync);
  const auto end = std::chrono::steady_clock::now();
  writes_.fetch_add(1, std::memory_order_relaxed);
  batch_count_.fetch_add(batches_.size(), std::memory_order_relaxed);
  CONCLAVE_FAILPOINT(raftAfterSave);
  options_.synced(last_batch, end - begin);
  return taken;
}

void LogThread::PrepareSpare() {
  if (spare_under_way_ || stopping_) return;
  if (spare_failed_ && std::chrono::steady_clock::now() < spare_not_before_) return;
  if (log_->BeginSpare()) {
    Prepare(/*reserve=*/false);
  } else if (log_->BeginReserve()) {
    Prepare(/*reserve=*/true);
  } else {
    spare_failed_ = false;  // neither is missing: a segment that was let go has become the spare
  }
}

void LogThread::Prepare(bool reserve) {
  const auto make = [&disk = log_->disk(), bytes = log_->segment_bytes(), reserve] {
    return SpareDone{
        reserve ? wal::Log::MakeReserve(disk, bytes) : wal::Log::MakeSpare(disk, bytes), reserve};
  };
  if (options_.worker == nullptr) return SpareFinished(make());
  spare_under_way_ = true;
  options_.worker->Run([this, make] { Queue(make()); });
}

void LogThread::SpareFinished(const SpareDone& done) {
  done.reserve ? log_->EndReserve(done.status.ok()) : log_->EndSpare(done.status.ok());
  if (!absl::IsResourceExhausted(done.status)) OrFail(done.status);
  spare_failed_ = !done.status.ok();
  spare_not_before_ = std::chrono::steady_clock::now() + kSpareRetry;
  next_space_check_ = {};
}

// Everything that was set aside is used up: whoever waits for these entries waits for the operator.
// Nothing is lost by that, and it may go on at any time.
bool LogThread::AwaitRoom(uint64_t bytes) {
  while (true) {
    const absl::Status room = log_->EnsureRoom(bytes);
    if (room.ok()) return true;
    if (!absl::IsResourceExhausted(room)) OrFail(room);
    spare_failed_ = true;
    next_space_check_ = {};
    CheckSpace();
    const auto again = std::chrono::steady_clock::now() + kSpareRetry;
    while (std::chrono::steady_clock::now() < again) {
      if (stop_asked_.load(std::memory_order_acquire)) return false;
      bell_.Wait(kSpareRetry);
    }
  }
}

void LogThread::CheckSpace() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_space_check_) return;
  next_space_check_ = now + kSpaceCheckInterval;
  const auto free = log_->disk().FreeSpace();
  if (!free.ok()) return;  // nothing is known then; the next write will tell
  const uint64_t segment = log_->segment_bytes();
  // At the start nobody knows whether it was full before.
  const bool was_enough = space_.has_value() && space_ != Space::kFull;
  const uint64_t full_below = was_enough ? segment / kFullPart : segment;
  const Space space = spare_failed_ || free->free_bytes < full_below ? Space::kFull
                      : free->free_bytes < kTightSegments * segment  ? Space::kTight
                                                                     : Space::kEnough;
  if (space_ == space) return;
  space_ = space;
  if (options_.space) options_.space(space);
}

}  // namespace conclave::posix
