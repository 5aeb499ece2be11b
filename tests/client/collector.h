// Collector: what a watch delivered, for a test to wait on and to count.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "conclave/client/client.h"

namespace conclave::testing {

class Collector {
 public:
  WatchCallback Callback() {
    return [this](const WatchBatch& batch) {
      absl::MutexLock lock(&mutex_);
      batches_.push_back(batch);
    };
  }

  std::vector<WatchBatch> batches() const {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }

  std::vector<WatchEvent> events() const {
    std::vector<WatchEvent> all;
    for (const WatchBatch& batch : batches()) {
      all.insert(all.end(), batch.events.begin(), batch.events.end());
    }
    return all;
  }

  bool WaitFor(std::function<bool(const std::vector<WatchBatch>&)> condition,
               absl::Duration timeout = absl::Seconds(20)) const {
    absl::MutexLock lock(&mutex_);
    auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return condition(batches_); };
    return mutex_.AwaitWithTimeout(absl::Condition(&ready), timeout);
  }

  bool WaitForEvents(size_t count, absl::Duration timeout = absl::Seconds(20)) const {
    return WaitFor(
        [count](const std::vector<WatchBatch>& batches) {
          size_t events = 0;
          for (const WatchBatch& batch : batches) events += batch.events.size();
          return events >= count;
        },
        timeout);
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<WatchBatch> batches_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace conclave::testing
