// The thread that makes the log durable: group commit by back-pressure.
//
// It takes everything that was queued while it was busy, appends it with one write and one
// fdatasync, and reports once. There is no timer: the disk's own latency decides how much comes
// together. When nothing is left to do it sleeps on a futex, and Append wakes it only then; when
// nothing has come for a while it leaves the proof of the last sync (wal::Log::MarkSynced).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/base/mailbox.h"
#include "conclave/base/time.h"
#include "conclave/server/posix/bell.h"
#include "conclave/server/posix/worker.h"
#include "conclave/server/raft/types.h"
#include "conclave/server/wal/log.h"

namespace conclave::posix {

// As node::LogAppend.
struct LogWrite {
  uint64_t batch = 0;
  std::optional<wal::Position> reset;
  std::optional<raft::HardState> hard_state;
  std::vector<raft::Entry> entries;
};

// Prints "conclave: <status>; the process ends, because what was to be written may be lost" to
// stderr and ends the process with exit code 74 (EX_IOERR) at once, without destructors.
[[noreturn]] void EndOnDiskFailure(const absl::Status& status);

// Threads: the public methods may be called from any thread, Append by one at a time. The callbacks
// run on the log thread and must not block. Invariant: `synced(k)` is called once all batches up to
// k are durable, with k growing. Limits: one write takes at most kGroupBytesMax (or one larger
// LogWrite); the queue's length is the caller's affair: a node has at most its limit of uncommitted
// bytes under way.
class LogThread {
 public:
  static constexpr uint64_t kGroupBytesMax = uint64_t{4} << 20;

  // kFull: no space could be set aside for a further segment, or hardly any is left. It is over
  // when the spare and the reserve are there and there is room for yet another segment. kTight:
  // less than kTightSegments of them are left.
  enum class Space : uint8_t { kEnough, kTight, kFull };
  static constexpr uint64_t kTightSegments = 4;

  struct Options {
    // All batches up to `batch` are durable; `write_time` is what the last write and fdatasync
    // took.
    absl::AnyInvocable<void(uint64_t batch, Duration write_time)> synced;
    // The log cannot be written. Must not return.
    absl::AnyInvocable<void(const absl::Status&)> failed = EndOnDiskFailure;
    // The room on the disk: at the start, and whenever it changes. May be null.
    absl::AnyInvocable<void(Space)> space;
    // Prepares spare segments; null: the log thread does it itself, in between. Must outlive the
    // LogThread.
    Worker* worker = nullptr;
  };

  struct Figures {
    uint64_t writes = 0;    // gathered writes, each with one fdatasync
    uint64_t batches = 0;   // LogWrites in them
    uint64_t wake_ups = 0;  // times that the thread ran out of work and slept
    uint64_t segments = 0;
  };

  LogThread(std::unique_ptr<wal::Log> log, Options options);
  // Writes what is queued, leaves the proof, and joins.
  ~LogThread();

  void Append(LogWrite write);
  void TruncatePrefix(raft::Index index);

  [[nodiscard]] Figures figures() const;

 private:
  struct Truncate {
    raft::Index index;
  };
  struct SpareDone {
    absl::Status status;
    bool reserve = false;
  };
  struct Stop {};
  using Item = std::variant<LogWrite, Truncate, SpareDone, Stop>;

  void Queue(Item item);
  void Run();
  void Process(std::vector<Item>& items);
  // Makes as many of the queued writes durable as go into one write; gives how many items that
  // took.
  size_t WriteGroup(std::span<Item> items);
  void Idle();
  void PrepareSpare();
  void Prepare(bool reserve);
  void SpareFinished(const SpareDone& done);
  // Waits until there is room for so much; false: it is to stop.
  bool AwaitRoom(uint64_t bytes);
  void CheckSpace();
  void OrFail(const absl::Status& status);

  const std::unique_ptr<wal::Log> log_;
  Options options_;
  Mailbox<Item> mailbox_;
  Bell bell_;

  // Of the log thread.
  std::vector<wal::LogBatch> batches_;  // reused
  bool stopping_ = false;
  bool at_rest_ = false;  // slept, and nothing came
  bool spare_under_way_ = false;
  bool spare_failed_ = false;   // the last time
  std::optional<Space> space_;  // as last told
  std::chrono::steady_clock::time_point next_space_check_{};
  std::chrono::steady_clock::time_point spare_not_before_{};

  std::atomic<bool> stop_asked_{false};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> batch_count_{0};
  std::atomic<uint64_t> wake_ups_{0};
  std::atomic<uint64_t> segments_{0};

  std::thread thread_;
};

}  // namespace conclave::posix
