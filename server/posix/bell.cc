#include "conclave/server/posix/bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "conclave/base/check.h"

namespace conclave::posix {

void Bell::Wake() { syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0); }

bool Bell::Wait(Duration timeout) {
  uint32_t seen = kSilent;
  const bool sleeps = state_.compare_exchange_strong(seen, kAsleep, std::memory_order_acq_rel);
  timespec relative{};
  const bool limited = timeout != Duration::max();
  if (limited) {
    relative.tv_sec = static_cast<time_t>(timeout.count() / 1'000'000'000);
    relative.tv_nsec = static_cast<long>(timeout.count() % 1'000'000'000);
  }
  while (state_.load(std::memory_order_acquire) == kAsleep) {
    const long result = syscall(SYS_futex, &state_, FUTEX_WAIT_PRIVATE, kAsleep,
                                limited ? &relative : nullptr, nullptr, 0);
    if (result != 0 && errno == ETIMEDOUT) break;
    CONCLAVE_CHECK(result == 0 || errno == EAGAIN || errno == EINTR, "futex: errno ", errno);
  }
  state_.store(kSilent, std::memory_order_release);
  return sleeps;
}

}  // namespace conclave::posix
