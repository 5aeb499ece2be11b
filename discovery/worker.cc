#include "conclave/discovery/worker.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "conclave/base/check.h"

namespace conclave {

namespace {

using Clock = std::chrono::steady_clock;

constexpr absl::Duration kDelayMax = absl::Hours(24 * 365);  // what a clock can add without harm

}  // namespace

// std::mutex, not absl::Mutex: ThreadSanitizer cannot see through Debian's.
struct Worker::State {
  std::mutex mutex;
  std::condition_variable bell;  // of the thread
  // All guarded by mutex.
  std::multimap<Clock::time_point, Job> jobs;
  bool stopping = false;
  std::thread thread;
};

Worker::Worker() : state_(std::make_shared<State>()) {}

Worker::~Worker() {
  std::thread thread;
  std::multimap<Clock::time_point, Job>
      dropped;  // destroyed without the lock: a job may own anything
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    thread = std::move(state_->thread);
    dropped.swap(state_->jobs);
  }
  state_->bell.notify_one();
  if (!thread.joinable()) return;
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();
  } else {
    thread.join();
  }
}

void Worker::RunAfter(absl::Duration delay, Job job) {
  const std::lock_guard lock(state_->mutex);
  if (state_->stopping) return;
  CONCLAVE_CHECK(state_->jobs.size() < kJobsMax, "the worker's jobs only grow");
  state_->jobs.emplace(Clock::now() + absl::ToChronoNanoseconds(std::min(delay, kDelayMax)),
                       std::move(job));
  state_->bell.notify_one();
  if (!state_->thread.joinable()) {
    state_->thread = std::thread([state = state_] { Run(*state); });
  }
}

void Worker::Run(State& state) {
  while (true) {
    Job job;
    {
      std::unique_lock lock(state.mutex);
      // Until the first job is due; one that comes may be due before it.
      while (!state.stopping && (state.jobs.empty() || state.jobs.begin()->first > Clock::now())) {
        if (state.jobs.empty()) {
          state.bell.wait(lock);
        } else {
          const Clock::time_point due = state.jobs.begin()->first;
          state.bell.wait_until(lock, due);
        }
      }
      if (state.stopping) return;
      job = std::move(state.jobs.begin()->second);
      state.jobs.erase(state.jobs.begin());
    }
    job();
  }
}

}  // namespace conclave
