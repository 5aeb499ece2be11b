// PickTable: everything that a pick needs, made once for each change of the candidates, then read
// by all threads. Pure.
//
// Immutable; what a policy remembers from one pick to the next is one counter that outlives the
// tables, so that a change of the set does not send everybody back to the first backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "conclave/discovery/picking/backend.h"
#include "conclave/discovery/picking/hash_ring.h"
#include "conclave/discovery/picking/policy.h"
#include "conclave/discovery/picking/roster.h"
#include "conclave/discovery/picking/weighted_sequence.h"

namespace conclave::picking {

// The turn of round robin, shared by the tables of one channel, on a cache line of its own.
struct alignas(64) TurnCounter {
  std::atomic<uint64_t> value = 0;
};

class PickTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // `policy` and `turns` outlive the table.
  PickTable(const Policy* policy, TurnCounter* turns, Roster::Candidates candidates,
            std::shared_ptr<const HashRing> ring);

  // An index into backends(); kNone if there are none, or the application's picker wants none. Not
  // one of `broken`, which is what was picked before for this call, where the policy leaves a
  // choice.
  uint32_t Pick(const PickArgs& args, std::span<const uint32_t> broken = {}) const;
  // Whether a call may go to another backend if the one picked turns out to be broken. Not against
  // the will of the application's picker.
  bool may_pass_over() const { return !std::holds_alternative<std::shared_ptr<Picker>>(*policy_); }

  const std::vector<std::shared_ptr<const Backend>>& backends() const {
    return candidates_.backends;
  }
  const Roster::Candidates& candidates() const { return candidates_; }

 private:
  uint32_t NextTurn() const;
  uint32_t LeastLoaded(int choices, uint64_t random) const;
  uint32_t OnRing(const RingHash& policy, const PickArgs& args,
                  std::span<const uint32_t> broken) const;
  uint32_t Ask(Picker& picker, const PickArgs& args) const;

  const Policy* policy_;
  TurnCounter* turns_;
  Roster::Candidates candidates_;
  std::vector<const Backend*> ready_;
  WeightedSequence sequence_;
  std::shared_ptr<const HashRing> ring_;
  std::vector<uint32_t> by_ring_index_;  // ring member -> index of the candidate, or kNone
};

}  // namespace conclave::picking
