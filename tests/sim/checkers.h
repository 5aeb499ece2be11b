// The checkers: pure functions from a history to what is wrong with it. Empty: nothing.
//
// They lean on revisions: every answer carries one, and the true history says what happened at
// each. So strict serializability is not searched for but verified, in O(n log n).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "conclave/server/mvcc/digest.h"
#include "conclave/tests/sim/history.h"

namespace conclave::sim {

using Complaints = std::vector<std::string>;

// - an acknowledged write stands in the true history at its revision, exactly once and as it was
// asked for
// - a refused write is nowhere; one of unknown outcome is there at most once
// - real time: whatever begins after something else has returned comes behind it
// - every read shows the true state at its revision; linearizable ones are not older than what had
// returned
//   before they began
// - compares were decided by the state before the transaction
Complaints CheckKv(const TrueHistory& truth, const std::vector<KvOperation>& operations);

// - events are the true ones, in order, each once, none missing in between
// - nothing at or below a progress revision comes behind it
// - a watch that had the time has heard everything
Complaints CheckWatch(const TrueHistory& truth, const WatchHistory& watch);

// - the key of a lease does not go before the last acknowledged renewal (or the grant), as of its
// sending, plus
//   the TTL
// - no renewal is answered that the lease is gone before its key has gone
// - it goes in the end, and once all is well soon after the last attempt to renew it, plus the TTL
Complaints CheckLease(const TrueHistory& truth, const LeaseHistory& lease);

// A crash leaves an unfinished write at most, whenever it comes: nothing else may a member find on
// its disk when it starts, if nothing there has rotted, even if an operation of it has failed.
// `notes`: as recovery tells them. What is wrong; empty: nothing.
std::string CheckRecovery(const std::vector<std::string>& notes, bool has_rotted);

// Raft has one leader a term (thesis 3.2), and in one of its lives: who has lost its vote with its
// power may win the same term again.
class Elections {
 public:
  // A member leads in a term. What is wrong; empty: nothing.
  std::string Take(uint64_t term, size_t member, uint64_t life);

 private:
  std::map<uint64_t, std::pair<size_t, uint64_t>> leaders_;  // by term
};

// All members apply one log: at an applied index they have the same state and configuration, and
// none of them goes back before it starts again from its disk.
class EqualStates {
 public:
  struct Look {
    uint64_t applied = 0;
    mvcc::Digest state;
    uint64_t conf = 0;  // a hash of Raft's configuration
  };
  // A member has applied something. What is wrong; empty: nothing.
  std::string Take(size_t member, const Look& look);
  void Restarted(size_t member) { applied_[member] = 0; }
  // Where the member was when it was looked at last; 0: not since its start.
  uint64_t applied(size_t member) { return applied_[member]; }

 private:
  std::map<size_t, uint64_t> applied_;
  std::unordered_map<uint64_t, Look> first_;  // to get there, by applied index
};

// What Raft forbids a leader, whatever comes of it. One member is looked at after each of its
// turns, from its start on.
// - thesis 3.6.2: it commits by counting only what is of its own term
// - 4.1, and Ongaro's note of July 2015: it changes the membership only when it has committed in
// its term, and what was changed before is committed
class LeaderRules {
 public:
  struct Look {
    uint64_t term = 0;
    uint64_t commit = 0;
    uint64_t first_own = 0;   // the entry that opens its term; 0: it does not lead
    uint64_t conf_entry = 0;  // the newest change of membership in its log
  };
  // What is wrong; empty: nothing.
  std::string Take(const Look& look);

 private:
  Look last_;
  uint64_t commit_at_first_ = 0;  // when it was seen to lead for the first time, in this term
};

}  // namespace conclave::sim
