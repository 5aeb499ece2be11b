// The log thread and the worker: group commit, order, failures, an orderly end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <latch>
#include <mutex>

#include "conclave/base/check.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/posix/disk.h"
#include "conclave/server/posix/log_thread.h"
#include "conclave/server/posix/worker.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/tests/posix/temporary_directory.h"

namespace conclave::posix {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSegmentBytes = 64 << 10;

wal::Options LogOptions() {
  return {.cluster_id = 1, .member_id = raft::NodeId(2), .segment_bytes = kSegmentBytes};
}

std::unique_ptr<wal::Log> OpenLog(env::Disk& disk) {
  auto recovered = wal::Log::Recover(disk, LogOptions(), {});
  CONCLAVE_CHECK(recovered.ok(), recovered.status().ToString());
  return std::move(recovered->log);
}

LogWrite OneEntry(uint64_t index, size_t bytes = 300) {
  return {.batch = index,
          .reset = {},
          .hard_state = {},
          .entries = {{.term = raft::Term(1),
                       .index = raft::Index(index),
                       .payload = Bytes::Copy(std::string(bytes, 'x'))}}};
}

// Collects what the log thread reports.
class Reports {
 public:
  void Add(uint64_t batch) {
    std::lock_guard lock(mutex_);
    batches_.push_back(batch);
    changed_.notify_all();
  }
  void Await(uint64_t batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !batches_.empty() && batches_.back() >= batch; });
  }
  std::vector<uint64_t> batches() {
    std::lock_guard lock(mutex_);
    return batches_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> batches_;
};

class LogThreadTest : public ::testing::Test {
 protected:
  std::unique_ptr<LogThread> Start(Worker* worker = nullptr) {
    return std::make_unique<LogThread>(
        OpenLog(*disk_),
        LogThread::Options{.synced = [this](uint64_t batch, Duration) { reports_.Add(batch); },
                           .space = nullptr,
                           .worker = worker});
  }

  TemporaryDirectory directory_;
  std::unique_ptr<env::Disk> disk_ = *OpenDisk(directory_ / "data");
  Reports reports_;
};

TEST_F(LogThreadTest, WhatIsReportedIsFoundAgain) {
  {
    auto thread = Start();
    for (uint64_t i = 1; i <= 1000; ++i) thread->Append(OneEntry(i));
    reports_.Await(1000);
  }
  const auto batches = reports_.batches();
  EXPECT_TRUE(std::is_sorted(batches.begin(), batches.end()));
  const auto recovered = wal::Log::Recover(*disk_, LogOptions(), {});
  ASSERT_TRUE(recovered.ok());
  EXPECT_EQ(recovered->entries.size(), 1000u);
  EXPECT_EQ(recovered->torn_bytes, 0u);
}

TEST_F(LogThreadTest, ABurstSharesFewSyncs) {
  auto thread = Start();
  for (uint64_t i = 1; i <= 10'000; ++i) thread->Append(OneEntry(i));
  reports_.Await(10'000);
  EXPECT_EQ(thread->figures().batches, 10'000u);
  EXPECT_LT(thread->figures().writes, 2'000u);
}

TEST_F(LogThreadTest, OneWriterAtATimeCostsOneWakeUpPerWrite) {
  auto thread = Start();
  for (uint64_t i = 1; i <= 100; ++i) {
    thread->Append(OneEntry(i));
    reports_.Await(i);
  }
  EXPECT_EQ(thread->figures().writes, 100u);
  EXPECT_LE(thread->figures().wake_ups, 101u);
}

TEST_F(LogThreadTest, WhatIsQueuedAtTheEndIsWritten) {
  {
    auto thread = Start();
    for (uint64_t i = 1; i <= 100; ++i) thread->Append(OneEntry(i));
  }
  EXPECT_EQ(wal::Log::Recover(*disk_, LogOptions(), {})->entries.size(), 100u);
}

TEST_F(LogThreadTest, SegmentsAreRemovedBehindASnapshot) {
  Worker worker;
  {
    auto thread = Start(&worker);
    for (uint64_t i = 1; i <= 2000; ++i) {
      thread->Append(OneEntry(i));
      if (i % 100 == 0) thread->TruncatePrefix(raft::Index(i - 50));
    }
    reports_.Await(2000);
  }
  const auto recovered =
      wal::Log::Recover(*disk_, LogOptions(), {.index = raft::Index(1950), .term = raft::Term(1)});
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->entries.size(), 50u);
  EXPECT_LE(recovered->log->segment_count(), 2u);
}

TEST_F(LogThreadTest, AWriteLargerThanAGroupIsWritten) {
  {
    auto thread = Start();
    thread->Append(OneEntry(1, LogThread::kGroupBytesMax + 1));
    thread->Append(OneEntry(2));
    reports_.Await(2);
  }
  EXPECT_EQ(wal::Log::Recover(*disk_, LogOptions(), {})->entries.size(), 2u);
}

// ---- Failures, on a disk that fails when told to.

using LogThreadDeathTest = LogThreadTest;

void RunOnFailingDisk(env::MemoryDisk::Operation which, const absl::Status& error) {
  env::MemoryDisk disk("/data");
  auto log = OpenLog(disk);
  disk.set_hook([&](env::MemoryDisk::Operation operation, std::string_view) {
    return operation == which ? error : absl::OkStatus();
  });
  std::latch reported(1);
  LogThread thread(std::move(log), {.synced = [&](uint64_t, Duration) { reported.count_down(); },
                                    .space = nullptr});
  thread.Append(OneEntry(1));
  reported.wait();
}

TEST_F(LogThreadDeathTest, AFailedSyncEndsTheProcessWithOneLine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(RunOnFailingDisk(env::MemoryDisk::Operation::kSync,
                               absl::InternalError("cannot sync wal/1.log: Input/output error")),
              ::testing::ExitedWithCode(74),
              "^conclave: cannot sync wal/1.log: Input/output error; the process ends, because "
              "what it was to remember may be lost\n$");
}

TEST_F(LogThreadDeathTest, AFullDiskEndsTheProcessWithOneLine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      RunOnFailingDisk(env::MemoryDisk::Operation::kWrite,
                       absl::ResourceExhaustedError("cannot write: No space left on device")),
      ::testing::ExitedWithCode(74), "No space left on device");
}

// A disk that has room again: the space callback tells both, and nothing has ended.
TEST(LogThreadSpaceTest, AFullDiskIsToldBeforeTheLogNeedsIt) {
  env::MemoryDisk disk("/data");
  auto log = OpenLog(disk);
  std::atomic<bool> full{true};
  disk.set_hook([&](env::MemoryDisk::Operation operation, std::string_view path) {
    const bool spare = operation == env::MemoryDisk::Operation::kPreallocate &&
                       path.find("spare") != std::string_view::npos;
    return spare && full ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  });
  using Space = LogThread::Space;
  std::latch low(1);
  std::latch enough(1);
  std::unique_ptr<LogThread> thread = std::make_unique<LogThread>(
      std::move(log),
      LogThread::Options{.synced = [](uint64_t, Duration) {},
                         .space =
                             [&, told = false](Space space) mutable {
                               if (space == Space::kFull && !std::exchange(told, true))
                                 low.count_down();
                               if (space == Space::kEnough && told) enough.count_down();
                             }});
  for (uint64_t i = 1; i <= 130; ++i) thread->Append(OneEntry(i));
  low.wait();
  full = false;
  enough.wait();
}

// Whoever waits for an entry that nothing can hold waits until something can; nothing ends.
TEST(LogThreadSpaceTest, WithoutAnyRoomEntriesWaitForIt) {
  env::MemoryDisk disk("/data");
  auto log = OpenLog(disk);
  std::atomic<bool> full{true};
  disk.set_hook([&](env::MemoryDisk::Operation operation, std::string_view) {
    return operation == env::MemoryDisk::Operation::kPreallocate && full
               ? absl::ResourceExhaustedError("full")
               : absl::OkStatus();
  });
  constexpr uint64_t kEntries = 2000;  // more than a segment
  std::atomic<uint64_t> synced{0};
  std::latch low(1);
  std::latch all(1);
  {
    LogThread thread(std::move(log),
                     LogThread::Options{.synced =
                                            [&](uint64_t batch, Duration) {
                                              synced = batch;
                                              if (batch == kEntries) {
                                                all.count_down();
                                              }
                                            },
                                        .space =
                                            [&, told = false](LogThread::Space space) mutable {
                                              if (space == LogThread::Space::kFull &&
                                                  !std::exchange(told, true)) {
                                                low.count_down();
                                              }
                                            }});
    for (uint64_t i = 1; i <= kEntries; ++i) thread.Append(OneEntry(i));
    low.wait();
    EXPECT_LT(synced, kEntries);
    full = false;
    all.wait();
  }
  EXPECT_EQ(wal::Log::Recover(disk, LogOptions(), {})->entries.size(), kEntries);
}

// And who stops then does not wait for the operator.
TEST(LogThreadSpaceTest, AThreadWithoutRoomStillStops) {
  env::MemoryDisk disk("/data");
  auto log = OpenLog(disk);
  disk.set_hook([&](env::MemoryDisk::Operation operation, std::string_view) {
    return operation == env::MemoryDisk::Operation::kPreallocate
               ? absl::ResourceExhaustedError("full")
               : absl::OkStatus();
  });
  std::latch low(1);
  LogThread thread(
      std::move(log),
      LogThread::Options{.synced = [](uint64_t, Duration) {},
                         .space =
                             [&, told = false](LogThread::Space space) mutable {
                               if (space == LogThread::Space::kFull && !std::exchange(told, true))
                                 low.count_down();
                             }});
  for (uint64_t i = 1; i <= 2000; ++i) thread.Append(OneEntry(i));
  low.wait();
}

TEST(SnapshotWriterTest, PiecesBecomeASnapshot) {
  env::MemoryDisk disk;
  Worker worker;
  const raft::SnapshotMeta meta{
      .index = raft::Index(9),
      .term = raft::Term(2),
      .conf = raft::ConfState{
          .voters = {raft::NodeId(1)}, .voters_outgoing = {}, .learners = {}, .learners_next = {}}};
  std::latch saved(1);
  uint64_t written = 0;
  {
    SnapshotWriter writer(&disk, &worker,
                          {.cluster_id = 7,
                           .written = [&](uint64_t bytes) { written += bytes; },
                           .saved =
                               [&](const snapshot::Saved& what) {
                                 EXPECT_EQ(what.meta, meta);
                                 EXPECT_EQ(what.bytes, 300'000u);
                                 saved.count_down();
                               },
                           .failed = [](const raft::SnapshotMeta&,
                                        const absl::Status& why) { ADD_FAILURE() << why; }});
    for (int i = 0; i < 3; ++i) {
      writer.Take({.meta = meta,
                   .data = Bytes::Copy(std::string(100'000, static_cast<char>('a' + i))),
                   .first = i == 0,
                   .last = i == 2});
    }
  }
  EXPECT_TRUE(saved.try_wait());
  EXPECT_EQ(written, 300'000u);
  const auto newest = snapshot::OpenNewest(disk, 7);
  ASSERT_TRUE(newest.ok());
  EXPECT_EQ(newest->reader->meta(), meta);
}

TEST(SnapshotWriterTest, AFailedSnapshotIsToldAndTheNextOneWorks) {
  env::MemoryDisk disk;
  Worker worker;
  disk.set_capacity_bytes(1000);
  const raft::SnapshotMeta meta{.index = raft::Index(9), .term = raft::Term(2), .conf = {}};
  std::vector<std::string> told;
  uint64_t written = 0;
  SnapshotWriter writer(&disk, &worker,
                        {.cluster_id = 7,
                         .written = [&](uint64_t bytes) { written += bytes; },
                         .saved = [&](const snapshot::Saved&) { told.push_back("saved"); },
                         .failed =
                             [&](const raft::SnapshotMeta& failed, const absl::Status& why) {
                               EXPECT_EQ(failed, meta);
                               told.push_back(std::string(why.message()));
                             }});
  const auto take = [&] {
    writer.Take({.meta = meta, .data = Bytes::Copy(std::string(2000, 'x')), .first = true});
    writer.Take({.meta = meta, .data = Bytes::Copy("the end"), .last = true});
    std::latch done(1);
    worker.Run([&] { done.count_down(); });
    done.wait();
  };
  take();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(told[0], HasSubstr("no space left"));
  disk.set_capacity_bytes(10'000);
  take();
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[1], "saved");
  // What was dropped as well.
  EXPECT_EQ(written, 2 * (2000u + 7u));
}

TEST(WorkerTest, JobsRunInOrderAndAllOfThemBeforeTheEnd) {
  std::vector<int> order;
  {
    Worker worker;
    for (int i = 0; i < 1000; ++i) worker.Run([&order, i] { order.push_back(i); });
  }
  EXPECT_EQ(order.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

}  // namespace
}  // namespace conclave::posix
