#include "conclave/client/grpc/executor.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

namespace conclave {

// std::mutex, not absl::Mutex: ThreadSanitizer cannot see through the one that Debian ships.
struct Executor::Queue {
  std::mutex mutex;
  std::condition_variable bell;
  std::vector<absl::AnyInvocable<void()>> work;  // guarded by mutex
  bool ending = false;                           // guarded by mutex
  bool busy = false;                             // guarded by mutex; a batch runs

  void Loop() {
    std::vector<absl::AnyInvocable<void()>> batch;
    for (;;) {
      batch.clear();
      {
        std::unique_lock lock(mutex);
        busy = false;
        bell.wait(lock, [this] { return ending || !work.empty(); });
        if (work.empty()) return;
        batch.swap(work);
        busy = true;
      }
      for (absl::AnyInvocable<void()>& callback : batch) {
        callback();
        callback = nullptr;  // what it holds goes before the next one runs
      }
    }
  }
};

Executor::Executor(const char* name) : queue_(std::make_shared<Queue>()) {
  thread_ = std::thread([queue = queue_] { queue->Loop(); });
  pthread_setname_np(thread_.native_handle(), name);
  thread_id_ = thread_.get_id();
}

Executor::~Executor() {
  {
    std::lock_guard lock(queue_->mutex);
    queue_->ending = true;
  }
  queue_->bell.notify_one();
  if (OnThisThread()) {
    thread_.detach();  // it touches nothing but its queue, which it owns
  } else {
    thread_.join();
  }
}

bool Executor::idle() const {
  std::lock_guard lock(queue_->mutex);
  return !queue_->busy && queue_->work.empty();
}

void Executor::Run(absl::AnyInvocable<void()> work) {
  {
    std::lock_guard lock(queue_->mutex);
    if (!queue_->ending) queue_->work.push_back(std::move(work));
  }
  queue_->bell.notify_one();
}

}  // namespace conclave
