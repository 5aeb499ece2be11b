#include "conclave/client/grpc/executor.h"

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace conclave {

struct Executor::Queue {
  absl::Mutex mutex;
  std::vector<absl::AnyInvocable<void()>> work ABSL_GUARDED_BY(mutex);
  bool ending ABSL_GUARDED_BY(mutex) = false;

  bool Ready() const ABSL_SHARED_LOCKS_REQUIRED(mutex) { return ending || !work.empty(); }

  void Loop() {
    std::vector<absl::AnyInvocable<void()>> batch;
    for (;;) {
      batch.clear();
      {
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(this, &Queue::Ready));
        if (work.empty()) return;
        batch.swap(work);
      }
      for (absl::AnyInvocable<void()>& callback : batch) {
        callback();
        callback = nullptr;  // what it holds goes before the next one runs
      }
    }
  }
};

Executor::Executor() : queue_(std::make_shared<Queue>()) {
  thread_ = std::thread([queue = queue_] { queue->Loop(); });
  thread_id_ = thread_.get_id();
}

Executor::~Executor() {
  {
    absl::MutexLock lock(&queue_->mutex);
    queue_->ending = true;
  }
  if (OnThisThread()) {
    thread_.detach();  // it touches nothing but its queue, which it owns
  } else {
    thread_.join();
  }
}

void Executor::Run(absl::AnyInvocable<void()> work) {
  absl::MutexLock lock(&queue_->mutex);
  if (!queue_->ending) queue_->work.push_back(std::move(work));
}

}  // namespace conclave
