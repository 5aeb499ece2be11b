// RWMutex: a lock that one writer has, or any number of readers.
//
//   conclave::RWMutex index(session, "locks/index");
//   absl::StatusOr<conclave::ReadGuard> reading = index.ReadLock({.timeout = absl::Seconds(5)});
//   absl::StatusOr<conclave::WriteGuard> writing = index.WriteLock({.timeout = absl::Seconds(5)});
//
// First come, first served: a reader waits for the last writer who asked before it, a writer for
// the last of all who asked before it. So writers are not starved, and readers that stand together
// hold it together. Tokens, loss and cancelling are as for Mutex. It is not tied to threads: two
// reads of one thread are two readers, and whoever asks for the write lock while he reads waits for
// himself.
//
// Go's experimental recipe (contrib/recipes RWMutex) has the same keys; both exclude each other,
// but a fleet with such clients must not use Downgrade.
#pragma once

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

class [[nodiscard]] ReadGuard : public LockGuard {
 public:
  using LockGuard::LockGuard;

  // Always FailedPrecondition, and the guard stays: two readers that both waited to become the
  // writer would wait for each other. Unlock, take the write lock, and look again at what was read.
  absl::Status Upgrade() const;
};

class [[nodiscard]] WriteGuard : public LockGuard {
 public:
  using LockGuard::LockGuard;

  // Becomes a reader without letting a writer in between; readers that wait just behind come in.
  // The token stays. Consumes the guard: on an error the lock is given up, for whether it is still
  // exclusive is then not known.
  absl::StatusOr<ReadGuard> Downgrade(const CallOptions& call = {}) &&;
};

struct RWMutexOptions {
  std::string info{};    // shown to others who ask for the queue
  std::string holder{};  // who we are; empty: "host:pid"
};

struct RWQueueEntry {
  LockInfo who{};
  bool writer = false;
};

class RWMutex {
 public:
  RWMutex(const Session& session, std::string_view name, const RWMutexOptions& options = {});

  // As Mutex::Lock.
  absl::StatusOr<ReadGuard> ReadLock(const CallOptions& call = {});
  absl::StatusOr<WriteGuard> WriteLock(const CallOptions& call = {});
  // Without waiting; nullopt: not now. One round trip.
  absl::StatusOr<std::optional<ReadGuard>> TryReadLock(const CallOptions& call = {});
  absl::StatusOr<std::optional<WriteGuard>> TryWriteLock(const CallOptions& call = {});
  // Holders and waiters in order of arrival.
  absl::StatusOr<std::vector<RWQueueEntry>> Queue(const CallOptions& call = {});

 private:
  absl::Status Check() const;
  template <typename Guard>
  absl::StatusOr<std::optional<Guard>> Acquire(bool write, bool only_try, const CallOptions& call);

  std::shared_ptr<SessionRep> session_;
  std::string name_;
  RWMutexOptions options_;
};

}  // namespace conclave
