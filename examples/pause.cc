#include "conclave/examples/pause.h"

#include <signal.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "absl/time/clock.h"

namespace conclave::examples {
namespace {

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

void BlockSignals() {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

bool WaitForSignal(absl::Duration timeout) {
  const sigset_t signals = Signals();
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    if (timeout == absl::InfiniteDuration()) {
      if (sigwaitinfo(&signals, nullptr) > 0) return true;
      continue;
    }
    const absl::Duration left = deadline - absl::Now();
    const timespec wait = absl::ToTimespec(std::max(left, absl::ZeroDuration()));
    if (sigtimedwait(&signals, nullptr, &wait) > 0) return true;
    if (errno == EAGAIN) return false;
  }
}

}  // namespace conclave::examples
