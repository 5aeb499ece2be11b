// The bell that wakes the one thread behind a mailbox: a futex.
#pragma once

#include <atomic>
#include <cstdint>

#include "conclave/base/time.h"

namespace conclave::posix {

// Ringing costs a system call only when the thread sleeps, waiting only when nobody has rung.
// Threads: Ring from any; Wait from one.
class Bell {
 public:
  void Ring() {
    if (state_.exchange(kRung, std::memory_order_acq_rel) == kAsleep) Wake();
  }

  // Returns once it was rung since the last Wait, or after `timeout`. True if the thread had to
  // sleep.
  bool Wait(Duration timeout = Duration::max());

 private:
  static constexpr uint32_t kSilent = 0;
  static constexpr uint32_t kRung = 1;
  static constexpr uint32_t kAsleep = 2;

  void Wake();

  std::atomic<uint32_t> state_{kSilent};
};

}  // namespace conclave::posix
