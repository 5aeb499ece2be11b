#include "conclave/registry/graceful_stop.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "conclave/base/check.h"

namespace conclave {
namespace {

constexpr absl::Duration kStoreTimeout = absl::Seconds(3);

std::atomic<int> g_bell = -1;   // an eventfd while somebody waits
std::atomic<int> g_signal = 0;  // the last signal

void Ring(int signal) {
  const int saved = errno;
  g_signal = signal;
  const uint64_t one = 1;
  // A full counter would mean that it has rung already.
  [[maybe_unused]] const ssize_t ignored = write(g_bell, &one, sizeof(one));
  errno = saved;
}

int WaitForSignal(std::stop_token stop) {
  const int bell = eventfd(0, EFD_CLOEXEC);
  CONCLAVE_CHECK(bell >= 0, "no eventfd");
  int none = -1;
  CONCLAVE_CHECK(g_bell.compare_exchange_strong(none, bell), "two wait for a signal");
  g_signal = 0;
  struct sigaction ring {
  }, old_term{}, old_int{};
  ring.sa_handler = Ring;
  sigaction(SIGTERM, &ring, &old_term);
  sigaction(SIGINT, &ring, &old_int);
  {
    std::stop_callback on_stop(stop, [] { Ring(0); });
    pollfd wait{.fd = bell, .events = POLLIN, .revents = 0};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
    }
  }
  sigaction(SIGTERM, &old_term, nullptr);
  sigaction(SIGINT, &old_int, nullptr);
  g_bell = -1;
  close(bell);
  return g_signal;
}

// Nothing can tell that all readers have heard: the protocol's only sign is time.
void Pause(absl::Duration duration) {
  absl::Notification never;
  never.WaitForNotificationWithTimeout(duration);
}

}  // namespace

void GracefulStop(const std::vector<Registration*>& registrations,
                  const GracefulStopOptions& options) {
  if (options.not_serving) options.not_serving();
  for (Registration* registration : registrations) {
    registration->Drain();
  }
  Pause(options.notice);
  // One deadline for all of them, however many there are.
  const absl::Time withdrawn_by = absl::Now() + kStoreTimeout;
  for (Registration* registration : registrations) {
    (void)registration->Withdraw({.deadline = withdrawn_by});
  }
  Pause(options.settle);
  if (options.shutdown) options.shutdown(options.grace);
  const absl::Time revoked_by = absl::Now() + kStoreTimeout;
  for (Registration* registration : registrations) {
    (void)registration->Deregister({.deadline = revoked_by});
  }
}

int RunUntilSignal(const std::vector<Registration*>& registrations,
                   const GracefulStopOptions& options, std::stop_token stop) {
  const int signal = WaitForSignal(std::move(stop));
  GracefulStop(registrations, options);
  return signal;
}

}  // namespace conclave
