// The background thread of a server: jobs on the disk that nobody waits for. Snapshot pieces,
// preallocation.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/mailbox.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/posix/bell.h"
#include "conclave/server/snapshot/writer.h"

namespace conclave::posix {

// Runs jobs one after the other, in order, on a thread of its own. Sleeps on a futex when there is
// none. Threads: any. The destructor runs what is queued, then joins.
class Worker {
 public:
  using Job = absl::AnyInvocable<void()>;

  Worker();
  ~Worker();

  void Run(Job job);
  [[nodiscard]] uint64_t wake_ups() const { return wake_ups_.load(std::memory_order_relaxed); }

 private:
  void Loop();

  Mailbox<Job> mailbox_;
  Bell bell_;
  std::atomic<uint64_t> wake_ups_{0};
  std::thread thread_;
};

// Saves a node's snapshot pieces on a Worker.
// Threads: Take from one thread at a time; the callbacks run on the worker.
class SnapshotWriter {
 public:
  struct Options {
    uint64_t cluster_id = 0;
    size_t keep = 2;
    // So many bytes that were taken are in memory no longer.
    absl::AnyInvocable<void(uint64_t)> written;
    absl::AnyInvocable<void(const snapshot::Saved&)> saved;
    // A snapshot could not be written (the disk is full, say). It is dropped; the log still has
    // everything, and the process goes on.
    absl::AnyInvocable<void(const raft::SnapshotMeta&, const absl::Status&)> failed;
  };

  // `disk` and `worker` must outlive it.
  SnapshotWriter(env::Disk* disk, Worker* worker, Options options);
  // Waits until its pieces are done with.
  ~SnapshotWriter();

  void Take(snapshot::Piece piece);

 private:
  struct State;
  Worker* const worker_;
  const std::shared_ptr<State> state_;
};

}  // namespace conclave::posix
