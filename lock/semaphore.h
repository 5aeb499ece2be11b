// Semaphore: a number of permits that the whole cluster shares.
//
//   conclave::Semaphore gpus(session, "locks/gpu", {.permits = 4});
//   absl::StatusOr<conclave::PermitGuard> two = gpus.Acquire(2, {.timeout = absl::Minutes(1)});
//
// First come, first served, whatever the sizes: a request for many permits is not starved by small
// ones behind it. Tokens, loss and cancelling are as for Mutex. The guards of one process are
// independent of each other.
//
// The first use of a name stores the number of its permits; whoever names another one afterwards
// gets FailedPrecondition. Remove forgets the number while nobody uses the name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/lock/guard.h"

namespace conclave {

inline constexpr int64_t kPermitsMax = 4096;

class [[nodiscard]] PermitGuard : public LockGuard {
 public:
  PermitGuard(std::shared_ptr<Claim> claim, int64_t permits)
      : LockGuard(std::move(claim)), permits_(permits) {}

  int64_t permits() const { return permits_; }

 private:
  int64_t permits_;
};

struct SemaphoreOptions {
  int64_t permits = 1;   // in all, 1 to kPermitsMax
  std::string info{};    // shown to others who ask for the queue
  std::string holder{};  // who we are; empty: "host:pid"
};

struct PermitInfo {
  LockInfo who{};
  int64_t permits = 0;
  bool holds = false;  // else waits
};

class Semaphore {
 public:
  Semaphore(const Session& session, std::string_view name, const SemaphoreOptions& options);

  // As Mutex::Lock. InvalidArgument unless 1 <= permits <= options.permits.
  absl::StatusOr<PermitGuard> Acquire(int64_t permits = 1, const CallOptions& call = {});
  // Without waiting; nullopt: not now. One round trip if there is room, two if not.
  absl::StatusOr<std::optional<PermitGuard>> TryAcquire(int64_t permits = 1,
                                                        const CallOptions& call = {});
  // Holders and waiters in order of arrival.
  absl::StatusOr<std::vector<PermitInfo>> Queue(const CallOptions& call = {});
  // Forgets the number of permits. FailedPrecondition while somebody holds or waits.
  absl::Status Remove(const CallOptions& call = {});

 private:
  absl::Status Check() const;
  absl::StatusOr<std::optional<PermitGuard>> Acquire(int64_t permits, bool only_try,
                                                     const CallOptions& call);

  std::shared_ptr<SessionRep> session_;
  std::string name_;
  SemaphoreOptions options_;
};

}  // namespace conclave
