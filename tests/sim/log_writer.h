// LogWriter: what the log thread of a server does (posix/log_thread.h), in simulated time.
//
// It takes everything that is queued, sees to it that there is room, appends it, syncs after the
// disk's latency, and reports once. In between it makes spare segments, says how much room there is
// on the disk, and waits while there is none at all.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/wal/log.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {

class LogWriter {
 public:
  struct Callbacks {
    std::function<void(uint64_t batch)> synced;
    std::function<void(const node::DiskSpace& space)> space;
    // The log cannot be written: the process is to end. Nothing is written any more.
    std::function<void(const absl::Status& status)> failed;
    std::function<Duration()> sync_time;  // what the next operation takes
  };

  LogWriter(Schedule* schedule, Prng* prng, std::unique_ptr<wal::Log> log, Callbacks callbacks);

  // Tells how much room there is, and goes on from there.
  void Start();
  void Append(node::LogAppend append);
  void TruncatePrefix(raft::Index index) { truncate_ = index; }

 private:
  enum class Space : uint8_t { kEnough, kTight, kFull };

  void After(Duration time, void (LogWriter::*act)());
  bool Ok(const absl::Status& status);
  void StartWrite();
  size_t Group(uint64_t* bytes) const;
  bool HasRoom(uint64_t bytes);
  void WaitedForRoom();
  void EndWrite();
  void Rest();
  void PrepareSpare();
  void EndSpare();
  void CheckSpace();
  void Tick();

  Schedule* const schedule_;
  Prng* const prng_;
  const std::unique_ptr<wal::Log> log_;
  const Callbacks callbacks_;
  // What is planned is void when it is gone.
  const std::shared_ptr<char> alive_ = std::make_shared<char>();

  std::deque<node::LogAppend> queue_;
  bool failed_ = false;
  bool writing_ = false;
  bool waits_for_room_ = false;
  uint64_t written_batch_ = 0;
  std::optional<raft::Index> truncate_;
  bool spare_under_way_ = false;
  bool reserve_is_made_ = false;  // and not the spare
  bool spare_failed_ = false;     // the last time
  Instant spare_not_before_{};
  std::optional<Space> space_;  // as last told
  Instant next_space_check_{};
  bool tick_planned_ = false;
};

}  // namespace conclave::sim
