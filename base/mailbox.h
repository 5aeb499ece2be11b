// Mailbox<T>: many threads put in, one thread takes everything out at once.
//
// It holds no thread and wakes nobody: Put tells whether the mailbox was empty before, and whoever
// made it non-empty rings the owner's bell (an eventfd, a condition variable). So a burst costs one
// wake-up.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace conclave {

template <typename T>
class Mailbox {
 public:
  // True if the owner must be woken: the mailbox was empty.
  [[nodiscard]] bool Put(T item) {
    std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
    return items_.size() == 1;
  }

  // Replaces *out by all that has come, in order. The old capacity of *out is reused.
  void TakeAll(std::vector<T>* out) {
    out->clear();
    std::lock_guard lock(mutex_);
    items_.swap(*out);
  }

 private:
  // Not absl::Mutex: ThreadSanitizer cannot see through the one that Debian ships.
  std::mutex mutex_;
  std::vector<T> items_;  // guarded by mutex_
};

}  // namespace conclave
