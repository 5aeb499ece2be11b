// Collector: what a watch delivered, for a test to wait on and to count.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "conclave/client/client.h"

namespace conclave::testing {

class Collector {
 public:
  WatchCallback Callback() {
    return [this](const WatchBatch& batch) {
      std::lock_guard lock(mutex_);
      batches_.push_back(batch);
      more_.notify_all();
    };
  }

  std::vector<WatchBatch> batches() const {
    std::lock_guard lock(mutex_);
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
    std::unique_lock lock(mutex_);
    return more_.wait_for(lock, absl::ToChronoMicroseconds(timeout),
                          [&] { return condition(batches_); });
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
  mutable std::mutex mutex_;
  mutable std::condition_variable more_;
  std::vector<WatchBatch> batches_;
};

}  // namespace conclave::testing
