#include "conclave/server/lease/lessor.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::lease {
namespace {

constexpr int64_t kMsPerSecond = 1000;

// now + ms, and kNever where that is beyond all time: TTLs may be as long as 285 years.
Instant After(Instant now, int64_t ms) {
  constexpr int64_t kNsPerMs = 1'000'000;
  const int64_t base = now.time_since_epoch().count();
  int64_t ns;
  int64_t sum;
  if (__builtin_mul_overflow(ms, kNsPerMs, &ns) || __builtin_add_overflow(base, ns, &sum)) {
    return kNever;
  }
  return Instant(Duration(sum));
}

// Milliseconds from now to then, rounded up, at least 0.
int64_t MsUntil(Instant now, Instant then) {
  if (then <= now) return 0;
  return std::chrono::ceil<std::chrono::milliseconds>(then - now).count();
}

uint64_t MixBits(uint64_t word) {
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93u;
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93u;
  return word ^ (word >> 32);
}

}  // namespace

absl::Status LeaseNotFoundError() {
  return absl::NotFoundError("etcdserver: requested lease not found");
}
absl::Status LeaseExistsError() {
  return absl::FailedPreconditionError("etcdserver: lease already exists");
}
absl::Status LeaseTtlTooLargeError() {
  return absl::OutOfRangeError("etcdserver: too large lease TTL");
}

Lessor::Lessor(const LessorOptions& options) : options_(options) {
  CONCLAVE_CHECK(options.checkpoint_ttl_fraction > 0);
  CONCLAVE_CHECK(options.expired_retry > Duration::zero());
}

absl::StatusOr<int64_t> Lessor::EffectiveTtl(int64_t requested_seconds, int64_t min_seconds) {
  if (requested_seconds > kMaxTtlSeconds) return LeaseTtlTooLargeError();
  return std::max(requested_seconds, min_seconds);
}

// --- Replicated ---

absl::Status Lessor::Grant(LeaseId id, int64_t ttl_seconds, Instant now) {
  if (ttl_seconds > kMaxTtlSeconds) return LeaseTtlTooLargeError();
  if (id == kNoLease || ttl_seconds < 1) return absl::InvalidArgumentError("lease: bad id or TTL");
  if (Exists(id)) return LeaseExistsError();
  const int64_t ttl_ms = ttl_seconds * kMsPerSecond;
  Insert({.id = id, .ttl_seconds = ttl_seconds, .remaining_ms = ttl_ms});
  if (primary_) SetDeadline(slots_.find(id)->second, After(now, ttl_ms));
  return absl::OkStatus();
}

void Lessor::Insert(const LeaseImage& image) {
  const uint32_t slot = NewSlot();
  Lease& lease = leases_[slot];
  lease.id = image.id;
  lease.ttl_seconds = image.ttl_seconds;
  lease.end_ms = clock_ms_ + image.remaining_ms;
  sum_ += HashOf(lease);
  slots_.emplace(image.id, slot);
}

uint32_t Lessor::NewSlot() {
  if (!free_slots_.empty()) {
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }
  CONCLAVE_CHECK(leases_.size() < UINT32_MAX);
  leases_.emplace_back();
  return static_cast<uint32_t>(leases_.size() - 1);
}

absl::StatusOr<std::vector<std::string>> Lessor::Revoke(LeaseId id) {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return LeaseNotFoundError();
  const uint32_t slot = found->second;
  Lease& lease = leases_[slot];
  std::vector<std::string> keys(lease.keys.begin(), lease.keys.end());
  sum_ -= HashOf(lease);
  lease = Lease();
  slots_.erase(found);
  deadlines_.Remove(slot);
  checkpoints_.Remove(slot);
  free_slots_.push_back(slot);
  return keys;
}

bool Lessor::Checkpoint(LeaseId id, int64_t remaining_ms, Instant now) {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return false;
  const uint32_t slot = found->second;
  Lease& lease = leases_[slot];
  const int64_t ttl_ms = lease.ttl_seconds * kMsPerSecond;
  SetEnd(&lease, clock_ms_ + std::clamp<int64_t>(remaining_ms, 0, ttl_ms));
  if (!primary_) return true;
  if (lease.given_out && !MUTANT("renewal-overtakes-the-end")) {
    // It was so long on its way that the lease has run out once more, and the end is on its way
    // too.
    REACHED("lease: a checkpoint of a lease that ends");
    return true;
  }
  if (remaining_ms >= ttl_ms) {
    // Renew has usually moved the deadline already, to a little less; never back.
    SetDeadline(slot, std::max(lease.deadline, After(now, ttl_ms)));
  } else {
    REACHED("lease: a checkpoint is applied");
    if (lease.checkpoints_under_way > 0) --lease.checkpoints_under_way;
    ScheduleCheckpoint(slot);
  }
  return true;
}

void Lessor::AdvanceClock(int64_t elapsed_ms) {
  CONCLAVE_CHECK(elapsed_ms >= 0);
  // No lease ends later than this from now, so the clock may stop there without anyone noticing.
  constexpr int64_t kClockMax = INT64_MAX - kMaxTtlSeconds * kMsPerSecond;
  clock_ms_ = elapsed_ms > kClockMax - clock_ms_ ? kClockMax : clock_ms_ + elapsed_ms;
}

absl::Status Lessor::Attach(std::string_view key, LeaseId id) {
  Lease* lease = Find(id);
  if (lease == nullptr) return LeaseNotFoundError();
  lease->keys.emplace(key);
  return absl::OkStatus();
}

void Lessor::Detach(std::string_view key, LeaseId id) {
  Lease* lease = Find(id);
  if (lease == nullptr) return;
  const auto found = lease->keys.find(std::string(key));
  if (found != lease->keys.end()) lease->keys.erase(found);
}

// --- The primary's own ---

void Lessor::Promote(Instant now, Duration extend) {
  primary_ = true;
  deadlines_.Clear();
  checkpoints_.Clear();
  const int64_t extend_ms = std::chrono::ceil<std::chrono::milliseconds>(extend).count();
  for (const auto& [id, slot] : slots_) {
    Lease& lease = leases_[slot];
    lease.given_out = false;
    lease.checkpoints_under_way = 0;
    lease.deadline = After(now, RemainingMs(lease) + extend_ms);
    if (MUTANT("leases-begin-anew-with-each-leader")) {
      lease.deadline = After(now, lease.ttl_seconds * kMsPerSecond);
    }
    deadlines_.Append(slot, lease.deadline);
    const Instant due = CheckpointDue(lease);
    if (due != kNever && !MUTANT("checkpoints-stop-with-the-first-leader")) {
      checkpoints_.Append(slot, due);
    }
  }
  deadlines_.Build();
  checkpoints_.Build();
}

void Lessor::Demote() {
  primary_ = false;
  deadlines_.Clear();
  checkpoints_.Clear();
}

Lessor::RenewResult Lessor::Renew(LeaseId id, Instant now) {
  const auto found = slots_.find(id);
  if (!primary_) return {.outcome = Renewal::kNotPrimary};
  if (found == slots_.end()) return {.outcome = Renewal::kNotFound};
  Lease& lease = leases_[found->second];
  const bool late = lease.given_out || lease.deadline <= now;
  if (late) {
    REACHED("lease: a renewal comes too late");
    if (!MUTANT("lease-renewed-while-it-ends")) return {.outcome = Renewal::kExpired};
  }
  const int64_t ttl_ms = lease.ttl_seconds * kMsPerSecond;
  SetDeadline(found->second, std::max(lease.deadline, After(now, ttl_ms)));
  return {.outcome = Renewal::kRenewed,
          .ttl_seconds = lease.ttl_seconds,
          // What is under way would shorten it behind our back.
          .must_replicate = (RemainingMs(lease) < ttl_ms || lease.checkpoints_under_way > 0) &&
                            !MUTANT("renewals-not-replicated") &&
                            !(late && MUTANT("lease-renewed-while-it-ends"))};
}

bool Lessor::IsEnding(LeaseId id) const {
  const Lease* lease = Find(id);
  return primary_ && lease != nullptr && lease->given_out;
}

std::vector<LeaseId> Lessor::Expired(Instant now, size_t limit) {
  std::vector<LeaseId> expired;
  while (expired.size() < limit && !deadlines_.empty() && deadlines_.first_deadline() <= now) {
    const uint32_t slot = deadlines_.first_slot();
    Lease& lease = leases_[slot];
    lease.given_out = true;
    checkpoints_.Remove(slot);
    deadlines_.Set(slot, now + options_.expired_retry);
    expired.push_back(lease.id);
  }
  return expired;
}

std::vector<LeaseImage> Lessor::DueCheckpoints(Instant now, size_t limit, Duration early) {
  std::vector<LeaseImage> due;
  const Instant horizon = now + early;
  while (due.size() < limit && !checkpoints_.empty() && checkpoints_.first_deadline() <= horizon) {
    const uint32_t slot = checkpoints_.first_slot();
    Lease& lease = leases_[slot];
    const Instant really_due = CheckpointDue(lease);
    if (really_due > horizon) {  // the clock was advanced meanwhile
      REACHED("lease: a checkpoint is not due yet");
      ScheduleCheckpoint(slot);
      continue;
    }
    ++lease.checkpoints_under_way;
    due.push_back({.id = lease.id,
                   .ttl_seconds = lease.ttl_seconds,
                   .remaining_ms = MsUntil(now, lease.deadline)});
    // Applying it schedules the next one; if it is lost, it comes again.
    checkpoints_.Set(slot, horizon + CheckpointLag(lease));
  }
  return due;
}

Instant Lessor::NextDeadline() const {
  return deadlines_.empty() ? kNever : deadlines_.first_deadline();
}

Instant Lessor::NextCheckpoint() const {
  return checkpoints_.empty() ? kNever : checkpoints_.first_deadline();
}

void Lessor::SetDeadline(uint32_t slot, Instant deadline) {
  Lease& lease = leases_[slot];
  lease.deadline = deadline;
  lease.given_out = false;
  deadlines_.Set(slot, deadline);
  ScheduleCheckpoint(slot);
}

void Lessor::ScheduleCheckpoint(uint32_t slot) {
  const Instant due = CheckpointDue(leases_[slot]);
  if (due == kNever) {
    checkpoints_.Remove(slot);
  } else {
    checkpoints_.Set(slot, due);
  }
}

Duration Lessor::CheckpointLag(const Lease& lease) const {
  // In milliseconds first: a TTL in nanoseconds may be all that 64 bits can hold.
  const int64_t part_ms = lease.ttl_seconds * kMsPerSecond / options_.checkpoint_ttl_fraction;
  return std::max(options_.checkpoint_lag_min, Duration(std::chrono::milliseconds(part_ms)));
}

// The lag at time t is remaining - (deadline - t). In its last moments a lease ends before it is
// due.
Instant Lessor::CheckpointDue(const Lease& lease) const {
  if (options_.checkpoint_lag_min <= Duration::zero() || lease.given_out) return kNever;
  if (lease.deadline == kNever) return kNever;
  const Duration remaining = std::chrono::milliseconds(RemainingMs(lease));
  const Duration before_end = remaining - CheckpointLag(lease);
  // Beyond the end of time.
  if (before_end < Duration::zero() && lease.deadline > kNever + before_end) return kNever;
  return lease.deadline - before_end;
}

// --- Reads ---

absl::StatusOr<Lessor::TimeToLiveResult> Lessor::TimeToLive(LeaseId id, Instant now) const {
  const Lease* lease = Find(id);
  if (lease == nullptr) return LeaseNotFoundError();
  int64_t remaining_seconds = RemainingMs(*lease) / kMsPerSecond;
  if (primary_) {
    remaining_seconds =
        lease->deadline <= now
            ? 0
            : std::chrono::floor<std::chrono::seconds>(lease->deadline - now).count();
  }
  return TimeToLiveResult{.ttl_seconds = lease->ttl_seconds,
                          .remaining_seconds = std::min(remaining_seconds, lease->ttl_seconds)};
}

std::vector<std::string> Lessor::Keys(LeaseId id) const {
  const Lease* lease = Find(id);
  if (lease == nullptr) return {};
  return {lease->keys.begin(), lease->keys.end()};
}

size_t Lessor::KeyCount(LeaseId id) const {
  const Lease* lease = Find(id);
  return lease == nullptr ? 0 : lease->keys.size();
}

void Lessor::ForEachKey(LeaseId id, absl::FunctionRef<bool(std::string_view)> visit) const {
  const Lease* lease = Find(id);
  if (lease == nullptr) return;
  for (const std::string& key : lease->keys) {
    if (!visit(key)) return;
  }
}

std::vector<LeaseId> Lessor::Leases() const {
  std::vector<std::pair<int64_t, LeaseId>> ends;
  ends.reserve(slots_.size());
  for (const auto& [id, slot] : slots_) {
    const Lease& lease = leases_[slot];
    ends.emplace_back(primary_ ? lease.deadline.time_since_epoch().count() : lease.end_ms, id);
  }
  std::sort(ends.begin(), ends.end());
  std::vector<LeaseId> ids;
  ids.reserve(ends.size());
  for (const auto& [end, id] : ends) ids.push_back(id);
  return ids;
}

// --- Snapshots and digests ---

LessorImage Lessor::Export() const {
  LessorImage image;
  image.clock_ms = clock_ms_;
  image.leases.reserve(slots_.size());
  for (const auto& [id, slot] : slots_) {
    const Lease& lease = leases_[slot];
    image.leases.push_back(
        {.id = id, .ttl_seconds = lease.ttl_seconds, .remaining_ms = lease.end_ms - clock_ms_});
  }
  return image;
}

absl::Status Lessor::Import(const LessorImage& image) {
  if (image.clock_ms < 0 || image.clock_ms > INT64_MAX - kMaxTtlSeconds * kMsPerSecond) {
    return absl::InvalidArgumentError("state snapshot: the lease clock is out of bounds");
  }
  LeaseId last = kNoLease;
  for (const LeaseImage& lease : image.leases) {
    const bool ascending = &lease == &image.leases.front() || last < lease.id;
    if (!ascending || lease.id == kNoLease || lease.ttl_seconds < 1 ||
        lease.ttl_seconds > kMaxTtlSeconds || lease.remaining_ms < -image.clock_ms ||
        lease.remaining_ms > lease.ttl_seconds * kMsPerSecond) {
      return absl::InvalidArgumentError("state snapshot: a lease is out of bounds");
    }
    last = lease.id;
  }
  Demote();
  slots_.clear();
  leases_.clear();
  free_slots_.clear();
  sum_ = 0;
  clock_ms_ = image.clock_ms;
  for (const LeaseImage& lease : image.leases) Insert(lease);
  return absl::OkStatus();
}

uint64_t Lessor::digest() const { return sum_ + MixBits(static_cast<uint64_t>(clock_ms_) + 1); }

uint64_t Lessor::HashOf(const Lease& lease) const {
  uint64_t hash = MixBits(static_cast<uint64_t>(lease.id));
  hash = MixBits(hash + static_cast<uint64_t>(lease.ttl_seconds));
  return MixBits(hash + static_cast<uint64_t>(lease.end_ms));
}

void Lessor::SetEnd(Lease* lease, int64_t end_ms) {
  sum_ -= HashOf(*lease);
  lease->end_ms = end_ms;
  sum_ += HashOf(*lease);
}

int64_t Lessor::RemainingMs(const Lease& lease) const {
  return std::max<int64_t>(lease.end_ms - clock_ms_, 0);
}

Lessor::Lease* Lessor::Find(LeaseId id) {
  const auto found = slots_.find(id);
  return found == slots_.end() ? nullptr : &leases_[found->second];
}

const Lessor::Lease* Lessor::Find(LeaseId id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? nullptr : &leases_[found->second];
}

void Lessor::CheckInvariants() const {
  deadlines_.CheckInvariants();
  checkpoints_.CheckInvariants();
  CONCLAVE_CHECK(slots_.size() + free_slots_.size() == leases_.size());
  CONCLAVE_CHECK(deadlines_.size() == (primary_ ? slots_.size() : 0));
  uint64_t sum = 0;
  for (const auto& [id, slot] : slots_) {
    const Lease& lease = leases_[slot];
    CONCLAVE_CHECK(lease.id == id);
    sum += HashOf(lease);
    CONCLAVE_CHECK(RemainingMs(lease) <= lease.ttl_seconds * kMsPerSecond);
    if (!primary_) continue;
    CONCLAVE_CHECK(lease.given_out || deadlines_.DeadlineOf(slot) == lease.deadline);
    CONCLAVE_CHECK(!lease.given_out || !checkpoints_.Contains(slot));
  }
  CONCLAVE_CHECK(sum == sum_);
}

}  // namespace conclave::lease
