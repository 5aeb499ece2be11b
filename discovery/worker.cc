#include "conclave/discovery/worker.h"

#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "conclave/base/check.h"

namespace conclave {

struct Worker::State {
  absl::Mutex mutex;
  std::multimap<absl::Time, Job> jobs ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  std::thread thread ABSL_GUARDED_BY(mutex);
};

Worker::Worker() : state_(std::make_shared<State>()) {}

Worker::~Worker() {
  std::thread thread;
  std::multimap<absl::Time, Job> dropped;  // destroyed without the lock: a job may own anything
  {
    absl::MutexLock lock(&state_->mutex);
    state_->stopping = true;
    thread = std::move(state_->thread);
    dropped.swap(state_->jobs);
  }
  if (!thread.joinable()) return;
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();
  } else {
    thread.join();
  }
}

void Worker::RunAfter(absl::Duration delay, Job job) {
  absl::MutexLock lock(&state_->mutex);
  if (state_->stopping) return;
  CONCLAVE_CHECK(state_->jobs.size() < kJobsMax, "the worker's jobs only grow");
  state_->jobs.emplace(absl::Now() + delay, std::move(job));
  if (!state_->thread.joinable()) {
    state_->thread = std::thread([state = state_] { Run(*state); });
  }
}

void Worker::Run(State& state) {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&state.mutex);
      // Until the first job is due, or one comes that is due before it.
      while (!state.stopping && (state.jobs.empty() || state.jobs.begin()->first > absl::Now())) {
        const absl::Time due =
            state.jobs.empty() ? absl::InfiniteFuture() : state.jobs.begin()->first;
        const auto earlier = [&state, due]() ABSL_SHARED_LOCKS_REQUIRED(state.mutex) {
          return state.stopping || (!state.jobs.empty() && state.jobs.begin()->first < due);
        };
        state.mutex.AwaitWithDeadline(absl::Condition(&earlier), due);
      }
      if (state.stopping) return;
      job = std::move(state.jobs.begin()->second);
      state.jobs.erase(state.jobs.begin());
    }
    job();
  }
}

}  // namespace conclave
