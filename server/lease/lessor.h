// Lessor: leases as data. Time is passed in; the store is never touched (who revokes a lease gets
// its keys and deletes them).
//
// Two kinds of state:
//   replicated   id, TTL, remaining time, attached keys. Changed only by committed commands: Grant,
//   Revoke,
//                Checkpoint, AdvanceClock, Attach, Detach. Equal on all members at equal applied
//                index.
//   local        deadlines, on the primary (the Raft leader) only: made by Promote from the
//   replicated
//                remaining times, moved by Renew, forgotten by Demote.
//
// How the remaining time survives a change of leader. The replicated state has a *lease clock* in
// milliseconds; each lease holds the clock's reading at which it will end. Two ways to use it,
// which may be mixed:
//   - The clock is advanced through the log (AdvanceClock, one small command per step of a second
//   or
//     so for all leases together), and a renewal is replicated, batched, as Checkpoint(id, full
//     TTL) before it is acknowledged (`must_replicate` of Renew says so). A lease that is granted
//     or renewed between two steps counts from the earlier one, so Promote must extend by a step;
//     or the proposer advances the clock in front of every batch of grants and renewals. Then no
//     lease can end early, and none can outlive its TTL by more than a step per change of leader.
//   - The clock stands still, and the primary replicates what leases have left that were not
//   renewed for a
//     while (DueCheckpoints -> Checkpoint(id, remaining)). A renewal needs a command only if its
//     lease had a checkpoint below its TTL.
//
// Thread: one owner. Deterministic; no unordered iteration. Memory: about 100 bytes a lease,
// without its keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/lease/deadline_heap.h"

namespace conclave::lease {

using LeaseId = int64_t;

inline constexpr LeaseId kNoLease = 0;
inline constexpr int64_t kMaxTtlSeconds = 9'000'000'000;
// What etcd has with its default election timeout: ceil(1.5 * 1 s).
inline constexpr int64_t kDefaultMinTtlSeconds = 2;

// The two errors a caller can cause, with the code and the text that clients know.
[[nodiscard]] absl::Status
LeaseNotFoundError();  // NotFound     "etcdserver: requested lease not found"
[[nodiscard]] absl::Status
LeaseExistsError();  // FailedPrecondition "etcdserver: lease already exists"
[[nodiscard]] absl::Status
LeaseTtlTooLargeError();  // OutOfRange   "etcdserver: too large lease TTL"

struct LessorOptions {
  // DueCheckpoints reports a lease when its replicated remaining time is too long by more than the
  // larger of the two. checkpoint_lag_min = 0 switches checkpoints off (DueCheckpoints is always
  // empty).
  Duration checkpoint_lag_min = std::chrono::seconds(1);
  int64_t checkpoint_ttl_fraction = 20;  // ... and of TTL / fraction
  // A lease given out by Expired is given out again after so long if it was not revoked meanwhile.
  Duration expired_retry = std::chrono::seconds(3);
};

// A lease as a snapshot has it; keys are not in it: they are attached again from the records' lease
// field.
struct LeaseImage {
  LeaseId id = kNoLease;
  int64_t ttl_seconds = 0;
  int64_t remaining_ms = 0;  // as of the lease clock; below 0 if it is overdue

  friend bool operator==(const LeaseImage&, const LeaseImage&) = default;
};

struct LessorImage {
  int64_t clock_ms = 0;
  std::vector<LeaseImage> leases;  // by id

  friend bool operator==(const LessorImage&, const LessorImage&) = default;
};

class Lessor {
 public:
  explicit Lessor(const LessorOptions& options = {});
  Lessor(const Lessor&) = delete;
  Lessor& operator=(const Lessor&) = delete;

  // What a requested TTL becomes: raised to `min_seconds` (also from 0 or below);
  // LeaseTtlTooLargeError above kMaxTtlSeconds. Done by the proposer, so that the log holds the
  // outcome and not a member's configuration.
  static absl::StatusOr<int64_t> EffectiveTtl(int64_t requested_seconds, int64_t min_seconds);

  // --- Replicated: called when a command is applied, with the same arguments on every member but
  // `now` ---

  // LeaseExistsError; LeaseTtlTooLargeError. ttl_seconds >= 1, id != 0 (InvalidArgument).
  absl::Status Grant(LeaseId id, int64_t ttl_seconds, Instant now);

  // Removes the lease; returns its keys in ascending order, for the caller to delete.
  // LeaseNotFoundError.
  absl::StatusOr<std::vector<std::string>> Revoke(LeaseId id);

  // The lease has `remaining_ms` left as of the lease clock's reading: what DueCheckpoints
  // reported, or the full TTL for a renewal. Clamped to [0, TTL]. On the primary a renewal also
  // moves the deadline to now + TTL, unless the lease IsEnding; anything less leaves it. A lease
  // that is gone is ignored (false).
  bool Checkpoint(LeaseId id, int64_t remaining_ms, Instant now);

  // All leases together have lost `elapsed_ms` (>= 0). O(1). Deadlines of the primary stay: they
  // ran anyway.
  void AdvanceClock(int64_t elapsed_ms);

  // A key belongs to a lease from now on. LeaseNotFoundError. Attaching twice is one attachment.
  absl::Status Attach(std::string_view key, LeaseId id);
  // Silently nothing if it was not attached, or id is kNoLease.
  void Detach(std::string_view key, LeaseId id);

  // --- The primary's own ---

  // From now on this member decides about expiry: every lease gets now + its remaining time +
  // extend. O(n).
  void Promote(Instant now, Duration extend);
  // Forgets all deadlines.
  void Demote();
  bool primary() const { return primary_; }

  enum class Renewal {
    kRenewed,
    kNotFound,  // answer TTL = 0
    kExpired,   // ended, but its revocation is not applied yet: wait for that, then answer TTL = 0
    kNotPrimary,  // ask the leader
  };
  struct RenewResult {
    Renewal outcome = Renewal::kNotFound;
    int64_t ttl_seconds = 0;
    // The replicated remaining time is shorter than the TTL: replicate Checkpoint(id, ttl * 1000)
    // and acknowledge the renewal only when that is committed, or a new leader may end the lease
    // early.
    bool must_replicate = false;
  };
  // Moves the deadline to now + TTL.
  RenewResult Renew(LeaseId id, Instant now);

  // Expired has given it out, and it is not revoked yet: no renewal counts any more, not one that
  // is on its way either.
  bool IsEnding(LeaseId id) const;

  // Leases whose deadline has passed, the earliest first, `limit` at most; each is given out once
  // per expired_retry until it is revoked. Nothing if not primary. O(k log n).
  std::vector<LeaseId> Expired(Instant now, size_t limit);

  // Leases whose remaining time should be replicated now, with that time in ms; each once per lag.
  // `early`: those too that will be due within so long.
  std::vector<LeaseImage> DueCheckpoints(Instant now, size_t limit, Duration early = {});

  // When Expired or DueCheckpoints will next have something; kNever if never.
  Instant NextDeadline() const;
  Instant NextCheckpoint() const;

  // --- Reads ---

  bool Exists(LeaseId id) const { return slots_.contains(id); }

  struct TimeToLiveResult {
    int64_t ttl_seconds = 0;
    // Seconds left, rounded down but at least 0; on a non-primary the replicated remaining time.
    // Saturating.
    int64_t remaining_seconds = 0;
  };
  // LeaseNotFoundError (the wire answers TTL = -1, and no error).
  absl::StatusOr<TimeToLiveResult> TimeToLive(LeaseId id, Instant now) const;

  // Attached keys in ascending order; empty for an unknown lease.
  std::vector<std::string> Keys(LeaseId id) const;
  size_t KeyCount(LeaseId id) const;
  // Visits attached keys in ascending order until `visit` gives false.
  void ForEachKey(LeaseId id, absl::FunctionRef<bool(std::string_view)> visit) const;

  // All ids, the one to end first at the front (deadlines on the primary, remaining times
  // elsewhere; then by id). O(n log n).
  std::vector<LeaseId> Leases() const;
  size_t size() const { return slots_.size(); }

  // --- Snapshots and digests ---

  // The replicated state, without keys. O(n): some 20 ms per million leases.
  LessorImage Export() const;
  // Replaces everything; not primary afterwards. Keys have to be attached again.
  // InvalidArgument if the image is not one (ids not ascending, TTLs out of bounds).
  absl::Status Import(const LessorImage& image);

  // A sum over (id, TTL, end) of all leases and the clock: O(1), equal on members with equal
  // replicated state.
  uint64_t digest() const;

  // Checks every invariant, at O(n). For tests.
  void CheckInvariants() const;

 private:
  struct Lease {
    LeaseId id = kNoLease;
    int64_t ttl_seconds = 0;
    int64_t end_ms = 0;         // replicated: the lease clock's reading at its end
    Instant deadline = kNever;  // on the primary
    // Checkpoints below the TTL that were given out and are not applied yet.
    uint32_t checkpoints_under_way = 0;
    bool given_out = false;  // by Expired, and not revoked yet
    absl::btree_set<std::string> keys;
  };

  Lease* Find(LeaseId id);
  const Lease* Find(LeaseId id) const;
  uint32_t NewSlot();
  void Insert(const LeaseImage& image);
  int64_t RemainingMs(const Lease& lease) const;
  uint64_t HashOf(const Lease& lease) const;
  void SetEnd(Lease* lease, int64_t end_ms);
  void SetDeadline(uint32_t slot, Instant deadline);
  void ScheduleCheckpoint(uint32_t slot);
  // When the replicated remaining time will be too long by the allowed lag; kNever if the lease
  // ends before.
  Instant CheckpointDue(const Lease& lease) const;
  Duration CheckpointLag(const Lease& lease) const;

  LessorOptions options_;
  bool primary_ = false;
  int64_t clock_ms_ = 0;
  uint64_t sum_ = 0;  // of the hashes of all leases
  absl::btree_map<LeaseId, uint32_t> slots_;
  std::deque<Lease> leases_;  // by slot
  std::vector<uint32_t> free_slots_;
  DeadlineHeap deadlines_;    // when Expired looks at a slot next
  DeadlineHeap checkpoints_;  // when DueCheckpoints does
};

}  // namespace conclave::lease
