// AutoCompactor: compacts the store by age or by number of revisions (--auto-compaction-*).
//
// Thread: one of its own, which sleeps nearly always. Compacts through the node like a client; only
// the leader does, so that a cluster does it once.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "conclave/server/app/config.h"
#include "conclave/server/app/log.h"
#include "conclave/server/http/backend.h"

namespace conclave::app {

inline constexpr Duration kRevisionCompactionInterval = std::chrono::minutes(5);
inline constexpr int kPeriodParts = 10;  // a period is looked at so often

class AutoCompactor {
 public:
  // `backend` must outlive it.
  AutoCompactor(const Config& config, http::Backend* backend, std::shared_ptr<Log> log);
  ~AutoCompactor();

  // When to look, for a mode and period: an hour at most between two looks.
  static Duration Interval(CompactionMode mode, Duration period);

 private:
  void Run();
  // `revision` is the current one, `now` in units of the interval.
  void Look(int64_t revision, bool is_leader);
  void Compact(int64_t revision);

  const CompactionMode mode_;
  const Duration period_;
  const int64_t keep_revisions_;
  const Duration interval_;
  http::Backend* const backend_;
  const std::shared_ptr<Log> log_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<int64_t> revisions_;  // one per look, oldest first
  int64_t compacted_ = 0;
  std::thread thread_;
};

}  // namespace conclave::app
