// Executor: one thread that runs callbacks, one after the other, in the order they were given.
//
// The queue is not bounded here: those who feed it bound what they put in (a watch stops reading
// from the network while kWatchBacklogMax of its batches wait).
#pragma once

#include <memory>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace conclave {

class Executor {
 public:
  // `name` shows in ps and debuggers; at most 15 characters.
  explicit Executor(const char* name);
  // Runs what is queued, then ends the thread. On the executor's own thread it does not wait: the
  // thread ends after the callback that destroys it.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // After the end has begun, work is dropped.
  void Run(absl::AnyInvocable<void()> work);
  bool OnThisThread() const { return std::this_thread::get_id() == thread_id_; }
  // Nothing is queued, and nothing runs.
  bool idle() const;

 private:
  struct Queue;
  std::shared_ptr<Queue> queue_;  // the thread keeps it alive
  std::thread thread_;
  std::thread::id thread_id_;
};

}  // namespace conclave
