// The figures of a node, for its metrics, its health pages and its tests: plain numbers, copied out
// by a StatsRequest. The names follow etcd's metrics (etcd_server_proposals_pending is
// `proposals_pending`), which the HTTP side prints.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

// Durations in buckets that double: the upper bound of bucket i is first * 2^i; the last one has
// none.
template <size_t kBuckets, int64_t kFirstNanoseconds>
struct DoublingHistogram {
  static constexpr size_t kBounds = kBuckets;

  std::array<uint64_t, kBuckets + 1> counts{};  // not cumulative
  uint64_t total = 0;
  Duration sum{};

  static constexpr Duration Bound(size_t bucket) { return Duration(kFirstNanoseconds << bucket); }
  void Record(Duration value) {
    size_t bucket = 0;
    while (bucket < kBuckets && value > Bound(bucket)) ++bucket;
    ++counts[bucket];
    ++total;
    sum += value;
  }
};

using DiskHistogram = DoublingHistogram<14, 1'000'000>;     // 1 ms ... 8.192 s
using RoundTripHistogram = DoublingHistogram<16, 100'000>;  // 100 us ... 3.2768 s
using RequestHistogram = DoublingHistogram<20, 100'000>;    // 100 us ... 52 s

struct PeerStats {
  raft::NodeId id;
  bool connected = false;
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t sent_failures = 0;  // frames that were to be sent while the lane was down
  RoundTripHistogram round_trip;
};

struct AlarmStats {
  raft::NodeId member;
  int type = 0;  // etcdserverpb.AlarmType
  // The member is on its way to get the others' state, and they serve meanwhile.
  bool refilled = false;
};

struct Stats {
  // Who and where.
  raft::NodeId member;
  uint64_t cluster_id = 0;
  raft::NodeId leader;
  raft::Term term;
  raft::Index commit;
  raft::Index applied;
  bool has_leader = false;
  bool is_leader = false;
  bool is_learner = false;
  bool disk_full = false;
  bool quarantined = false;     // its state is not the majority's; it is about to start anew
  bool awaits_repair = false;   // its log was damaged, and no leader has filled it again yet
  std::string cluster_version;  // "" before it is decided
  std::vector<AlarmStats> alarms;
  // Whether an alarm of that type concerns this member.
  bool HasAlarm(int type) const {
    return std::any_of(alarms.begin(), alarms.end(), [&](const AlarmStats& alarm) {
      return alarm.type == type && (!alarm.refilled || alarm.member == member);
    });
  }

  // Raft and the log.
  uint64_t leader_changes_seen = 0;
  uint64_t proposals_committed = 0;  // the commit index
  uint64_t proposals_applied = 0;    // the applied index
  uint64_t proposals_pending = 0;
  uint64_t proposals_failed = 0;
  uint64_t slow_reads = 0;    // read rounds above slow_request
  uint64_t reads_failed = 0;  // linearizable reads without an answer
  uint64_t read_rounds = 0;
  uint64_t snapshots_saved = 0;
  uint64_t snapshots_sent = 0;
  uint64_t snapshots_received = 0;
  uint64_t log_window_bytes = 0;  // entries held in memory
  DiskHistogram wal_fsync;
  // From the arrival of a member's own write to its being applied: the core has no clock within a
  // turn, so it cannot tell what applying alone takes.
  DiskHistogram apply;
  std::vector<PeerStats> peers;

  // The store.
  int64_t revision = 0;
  int64_t compact_revision = 0;
  uint64_t keys = 0;
  uint64_t bytes = 0;         // of the store, all revisions
  uint64_t bytes_in_use = 0;  // live
  int64_t quota_bytes = 0;
  uint64_t digest = 0;         // of the logical state at `applied`
  uint64_t divergences = 0;    // members seen with another digest at the same index
  uint64_t memory_checks = 0;  // of all records, that came to their end
  uint64_t file_checks = 0;    // of all files, likewise
  uint64_t files_damaged = 0;  // that were found by them

  // Leases, watchers, sessions.
  uint64_t leases = 0;
  uint64_t leases_granted = 0;
  uint64_t leases_revoked = 0;
  uint64_t leases_renewed = 0;
  uint64_t leases_expired = 0;
  uint64_t watch_streams = 0;
  uint64_t keep_alive_streams = 0;
  uint64_t watchers = 0;
  uint64_t watchers_slow = 0;  // behind the head
  uint64_t events = 0;

  uint64_t turns = 0;
  uint64_t inputs = 0;
  uint64_t slow_requests = 0;
  uint64_t frames_refused = 0;  // from peers, malformed
};

}  // namespace conclave::node
