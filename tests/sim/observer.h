// Observer: sees every member's state after each of its turns, and holds the true history: what a
// revision was on the member that got there first. Every other member must make the same of it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/node.h"
#include "conclave/tests/sim/auth_checker.h"
#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"

namespace conclave::sim {

class Observer {
 public:
  // A member has started from its disk: it begins again.
  void Restarted(size_t member) {
    seen_[member] = {.life = seen_[member].life + 1};
    states_.Restarted(member);
  }
  void Look(size_t member, const node::Node& node, Instant now);

  const TrueHistory& truth() const { return truth_; }
  const AuthHistory& auth_history() const { return auth_; }
  const Complaints& complaints() const { return complaints_; }

 private:
  struct Seen {
    int64_t revision = 0;  // 0: nothing yet
    uint64_t life = 0;
    LeaderRules rules{};
  };
  void Complain(size_t member, std::string what);
  void CheckLeader(size_t member, const node::Node& node);
  void Take(size_t member, int64_t revision, std::vector<Write> writes, Instant now);
  void TakeUsers(const auth::AuthStore& store, uint64_t applied, Instant now);

  std::map<size_t, Seen> seen_;
  Elections elections_;
  TrueHistory truth_;
  EqualStates states_;
  AuthHistory auth_;
  uint64_t auth_applied_ = 0;  // where the newest moment was seen
  std::pair<uint64_t, bool> auth_seen_{1, false};
  Complaints complaints_;
};

}  // namespace conclave::sim
