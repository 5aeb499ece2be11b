// The classes of faults, and how often each was done to a run.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace conclave::sim {

enum class Fault : uint8_t {
  // Members
  kPowerLoss,       // what was not synced is kept, lost, torn or reordered, sector by sector
  kLazyPowerLoss,   // nothing is left that was not synced
  kKill,            // the process dies, the machine does not
  kBlackout,        // all lose power at once
  kDeathInStart,    // dies again while it starts
  kMajorityDies,    // more than half of them, one after the other
  kRollingRestart,  // each, one after the other
  kPause,           // stands still, and its clock goes on
  kSlowMember,      // its turns come late
  kDrift,           // its clock runs fast or slow
  kLeaderMoved,     // is told to hand over
  kLeaderStopped,   // is told to stop
  kVoterDies,       // loses power while its disk writes its vote
  kSaverDies,       // loses power while its disk writes a snapshot, or soon after
  // Disks
  kSlowDisk,        // tens of milliseconds a sync
  kStalledDisk,     // longer than an election takes
  kStalledDisks,    // all of them, longer than some leases last
  kDiskError,       // an operation fails, or each from then on: the process ends
  kFullDisk,        // no room for further segments
  kFullDisks,       // the same on more than half of them
  kLogRot,          // bits of the log change
  kSnapshotRot,     // of snapshots
  kVoteRot,         // of the file of votes, or of the identity
  kMisplacedWrite,  // a sector of the log stands at another one's place
  // The network between members
  kOneWayCut,     // nothing reaches one from another
  kLinkCut,       // two do not reach each other, and both reach the others
  kIsolation,     // one reaches nobody
  kPartition,     // two groups
  kLeaderDeaf,    // nothing reaches the leader, and it reaches all
  kLeaderMute,    // the leader reaches nobody, and hears all
  kLeaderHasOne,  // the leader and one other reach each other; it reaches nobody else
  kLessorAlone,   // the leader reaches clients only, from when one renews a lease there on
  kBadNetwork,    // frames are late, and lost, repeated, garbled and reordered
  kClog,          // what one sends to another waits, and comes all at once
  kEcho,          // what one sends to another comes again, in order, much later
  kReset,         // a connection breaks
  kFrameLost,     // of these four: frames
  kFrameRepeated,
  kFrameLate,
  kFrameGarbled,
  // Clients
  kClientsCutOff,  // what clients and a member say to each other waits, or is lost
  kSlowReader,     // a client that takes its time
  kGuest,          // what is done to the processes of guests
};
inline constexpr size_t kFaults = static_cast<size_t>(Fault::kGuest) + 1;

// As flags of the program name them.
inline constexpr std::array<const char*, kFaults> kFaultNames = {
    // Members
    "power-loss", "lazy-power-loss", "kill", "blackout", "death-in-start", "majority-dies",
    "rolling-restart", "pause", "slow-member", "drift", "leader-moved", "leader-stopped",
    "voter-dies", "saver-dies",
    // Disks
    "slow-disk", "stalled-disk", "stalled-disks", "disk-error", "full-disk", "full-disks",
    "log-rot", "snapshot-rot", "vote-rot", "misplaced-write",
    // The network between members
    "one-way-cut", "link-cut", "isolation", "partition", "leader-deaf", "leader-mute",
    "leader-has-one", "lessor-alone", "bad-network", "clog", "echo", "reset", "frame-lost",
    "frame-repeated", "frame-late", "frame-garbled",
    // Clients
    "clients-cut-off", "slow-reader", "guest"};

class FaultCounts {
 public:
  void Add(Fault fault, uint64_t times = 1) { counts_[static_cast<size_t>(fault)] += times; }
  uint64_t of(Fault fault) const { return counts_[static_cast<size_t>(fault)]; }
  uint64_t all() const {
    uint64_t sum = 0;
    for (const uint64_t count : counts_) sum += count;
    return sum;
  }
  size_t classes() const {
    size_t classes = 0;
    for (const uint64_t count : counts_) classes += count > 0 ? 1 : 0;
    return classes;
  }
  FaultCounts& operator+=(const FaultCounts& other) {
    for (size_t i = 0; i < kFaults; ++i) counts_[i] += other.counts_[i];
    return *this;
  }

 private:
  std::array<uint64_t, kFaults> counts_{};
};

}  // namespace conclave::sim
