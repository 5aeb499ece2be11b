#include "conclave/server/posix/worker.h"

#include <latch>
#include <utility>

#include "conclave/base/failpoint.h"

namespace conclave::posix {

Worker::Worker() : thread_([this] { Loop(); }) {}

Worker::~Worker() {
  Run(nullptr);
  thread_.join();
}

void Worker::Run(Job job) {
  if (mailbox_.Put(std::move(job))) bell_.Ring();
}

// An empty job is the end.
void Worker::Loop() {
  std::vector<Job> jobs;
  while (true) {
    mailbox_.TakeAll(&jobs);
    if (jobs.empty() && bell_.Wait()) wake_ups_.fetch_add(1, std::memory_order_relaxed);
    for (Job& job : jobs) {
      if (!job) return;
      job();
      job = nullptr;
    }
  }
}

struct SnapshotWriter::State {
  State(env::Disk* disk, Options options_in)
      : options(std::move(options_in)), saver(disk, options.cluster_id, options.keep) {}

  Options options;
  snapshot::Saver saver;
};

SnapshotWriter::SnapshotWriter(env::Disk* disk, Worker* worker, Options options)
    : worker_(worker), state_(std::make_shared<State>(disk, std::move(options))) {}

SnapshotWriter::~SnapshotWriter() {
  std::latch done(1);
  worker_->Run([&done] { done.count_down(); });
  done.wait();
}

void SnapshotWriter::Take(snapshot::Piece piece) {
  worker_->Run([state = state_, piece = std::move(piece)] {
    CONCLAVE_FAILPOINT(raftBeforeSaveSnap);
    const auto saved = state->saver.Take(piece);
    if (!piece.data.empty()) state->options.written(piece.data.size());
    if (!saved.ok()) {
      state->options.failed(piece.meta, saved.status());
    } else if (saved->has_value()) {
      CONCLAVE_FAILPOINT(raftAfterSaveSnap);
      state->options.saved(**saved);
    }
  });
}

}  // namespace conclave::posix
