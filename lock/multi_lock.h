// MultiLock: several locks at once, or none.
//
//   conclave::MultiLock both(session, {"accounts/alice", "accounts/bob"});
//   absl::StatusOr<conclave::MultiLockGuard> guard = both.Lock({.timeout = absl::Seconds(5)});
//
// Each name is the lock that a Mutex of that name is, and excludes it. One transaction puts our key
// in all queues, with one revision; so everybody stands in the same order in all of them, and
// nobody waits in a circle, whatever the order in which the names were given. It is ours when
// nobody is before us under any name; until then nobody who came after us gets any of them.
//
// All tokens are the same number. If one of the locks is lost, all are given up.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/lock/guard.h"

namespace conclave {

// Three operations for each in one transaction, of which servers allow 128.
inline constexpr size_t kMultiLockNamesMax = 40;

class [[nodiscard]] MultiLockGuard {
 public:
  MultiLockGuard(MultiLockGuard&&) noexcept;
  MultiLockGuard& operator=(MultiLockGuard&&) noexcept;
  ~MultiLockGuard();

  // The fencing token of all the locks.
  int64_t token() const;
  std::vector<std::string> keys() const;  // in the order of the names, sorted
  // The conditions for a transaction that is to run only while all are ours: Client::Commit, or
  // TxnBuilder::If for each.
  std::vector<Compare> StillHeld() const;
  // As for LockGuard, of all the locks together.
  bool held() const;
  std::stop_token stop_token() const;
  absl::Status Unlock(const CallOptions& call = {});

 private:
  friend class MultiLock;
  explicit MultiLockGuard(std::shared_ptr<Claim> claim);
  std::shared_ptr<Claim> claim_;
};

struct MultiLockOptions {
  std::string info{};    // shown to others who ask for the queues
  std::string holder{};  // who we are; empty: "host:pid"
};

class MultiLock {
 public:
  // Names that come twice count once.
  MultiLock(const Session& session, std::vector<std::string> names,
            const MultiLockOptions& options = {});

  // As Mutex::Lock.
  absl::StatusOr<MultiLockGuard> Lock(const CallOptions& call = {});
  // One round trip; nullopt: somebody else has, or waits for, one of them.
  absl::StatusOr<std::optional<MultiLockGuard>> TryLock(const CallOptions& call = {});

 private:
  absl::StatusOr<std::optional<MultiLockGuard>> Acquire(bool only_try, const CallOptions& call);

  std::shared_ptr<SessionRep> session_;
  std::vector<std::string> names_;
  MultiLockOptions options_;
};

}  // namespace conclave
