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
  const Duration longest = space_enough_ ? Duration::max() : Duration(kSpareRetry);
  const bool slept = bell_.Wait(at_rest ? longest : Duration(kProofDelay));
  if (slept && !at_rest) wake_ups_.fetch_add(1, std::memory_order_relaxed);
  if (!space_enough_) PrepareSpare();
}

void LogThread::Process(std::vector<Item>& items) {
  for (size_t i = 0; i < items.size();) i += WriteGroup(std::span(items).subspan(i));
  for (const Item& item : items) {
    if (const auto* truncate = std::get_if<Truncate>(&item)) {
      OrFail(log_->TruncatePrefix(truncate->index));
    } else if (const auto* spare = std::get_if<SpareDone>(&item)) {
      spare_under_way_ = false;
      SpareFinished(spare->status);
    } else if (std::holds_alternative<Stop>(item)) {
      stopping_ = true;
    }
  }
  segments_.store(log_->segment_count(), std::memory_order_relaxed);
  PrepareSpare();
}

size_t LogThread::WriteGroup(std::span<Item> items) {
  batches_.clear();
  uint64_t bytes = 0;
  uint64_t last_batch = 0;
  size_t taken = 0;
  for (; taken < items.size(); ++taken) {
    const auto* write = std::get_if<LogWrite>(&items[taken]);
    if (write == nullptr) continue;
    const uint64_t write_bytes = PayloadBytes(*write);
    if (!batches_.empty() && bytes + write_bytes > kGroupBytesMax) break;
    bytes += write_bytes;
    last_batch = write->batch;
    batches_.push_back(
        {.reset = write->reset, .hard_state = write->hard_state, .entries = write->entries});
  }
  if (batches_.empty()) return taken;
  const auto begin = std::chrono::steady_clock::now();
  CONCLAVE_FAILPOINT(raftBeforeSave);
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
  if (!space_enough_ && std::chrono::steady_clock::now() < spare_not_before_) return;
  if (!log_->BeginSpare()) return;
  if (options_.worker == nullptr) {
    SpareFinished(wal::Log::MakeSpare(log_->disk(), log_->segment_bytes()));
    return;
  }
  spare_under_way_ = true;
  options_.worker->Run([this, &disk = log_->disk(), bytes = log_->segment_bytes()] {
    Queue(SpareDone{wal::Log::MakeSpare(disk, bytes)});
  });
}

void LogThread::SpareFinished(const absl::Status& status) {
  log_->EndSpare(status.ok());
  if (!absl::IsResourceExhausted(status)) OrFail(status);
  spare_not_before_ = std::chrono::steady_clock::now() + kSpareRetry;
  if (status.ok() == space_enough_) return;
  space_enough_ = status.ok();
  if (options_.space) options_.space(space_enough_);
}

}  // namespace conclave::posix
