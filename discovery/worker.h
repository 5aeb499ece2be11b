// Worker: one thread for what may block or must happen later (resolving a host name, trying a watch
// again).
//
// Jobs run one at a time in the order of their times. The thread starts with the first job. The
// destructor drops what has not begun and waits for the job that runs, unless it is run by that
// very job: then the thread ends right behind it, having touched nothing of the worker's any more.
#pragma once

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace conclave {

class Worker {
 public:
  static constexpr size_t kJobsMax = 100'000;
  using Job = absl::AnyInvocable<void()>;

  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void RunAfter(absl::Duration delay, Job job);

 private:
  struct State;
  static void Run(State& state);

  const std::shared_ptr<State> state_;  // shared with the thread
};

}  // namespace conclave
