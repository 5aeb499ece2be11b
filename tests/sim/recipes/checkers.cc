#include "conclave/tests/sim/recipes/checkers.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/tests/sim/recipes/key_lives.h"

namespace conclave::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kLeftMax = seconds(1);  // K6
// Of instances, once all is well.
constexpr Duration kBackWithin = seconds(4);
// The client of who was left alone silently loses less than half of the members in the end, and may
// meet three of them one after the other: a registrar's write is given that long.
constexpr Duration kBackPastTheSilent = 3 * seconds(5);
constexpr Duration kViewLagMax = seconds(1);
// Beyond a TTL: an election, the checkpoints' lag, and a second.
constexpr Duration kExpiryGrace = seconds(4);
// What was committed before an outage may be applied at its beginning.
constexpr Duration kOutageGrace = seconds(1);

std::string Name(const ClaimTrace& claim) {
  return absl::StrCat("process ", claim.process, ", token ", claim.token, " of ", claim.name);
}

std::string QueueOf(const ClaimTrace& claim) {
  return claim.name + (claim.kind == LockKind::kPermits ? "/queue/" : "/");
}

bool IsWriter(const ClaimTrace& claim, const KeyLife& life) {
  return claim.kind == LockKind::kShared && life.key.starts_with(claim.name + "/write/");
}

// How much of the claim's name a key takes.
int64_t PartsOf(const ClaimTrace& claim, const KeyLife& life) {
  switch (claim.kind) {
    case LockKind::kAlone:
      break;
    case LockKind::kShared:
      return IsWriter(claim, life) ? kReadersMax : 1;
    case LockKind::kPermits:
      return Number(life.key.substr(life.key.rfind('x') + 1));
  }
  return 1;
}

// From when to when a claim's turn is, by the keys: from when those that are older and left take so
// little that it fits, to the end of its own key.
struct TurnSpan {
  int64_t begun = 0;  // revision; 0: never
  Instant from = kNever;
  Instant until = kNever;
};

TurnSpan TurnOf(const ClaimTrace& claim, const KeyLife& own, const std::vector<KeyLife>& lives) {
  struct Step {
    int64_t revision;
    Instant at;
    int64_t less;
  };
  std::vector<Step> steps;
  int64_t taken = claim.wanted;
  for (const KeyLife& other : lives) {
    if (other.created >= own.created) break;
    if (other.deleted != 0 && other.deleted < own.created) continue;
    int64_t parts = PartsOf(claim, other);
    taken += parts;
    if (IsWriter(claim, other) && other.rewritten != 0) {  // a reader from then on
      steps.push_back({other.rewritten, other.rewritten_at, std::exchange(parts, 1) - 1});
    }
    if (other.deleted != 0) steps.push_back({other.deleted, other.until, parts});
  }
  std::sort(steps.begin(), steps.end(),
            [](const Step& a, const Step& b) { return a.revision < b.revision; });
  TurnSpan turn{.begun = own.created, .from = own.from, .until = own.until};
  for (auto step = steps.begin(); taken > claim.parts && step != steps.end(); ++step) {
    taken -= step->less;
    turn.begun = std::max(turn.begun, step->revision);
    turn.from = std::max(turn.from, step->at);
  }
  if (taken > claim.parts) return {.until = own.until};
  return turn;
}

TurnSpan CheckGrant(const ClaimTrace& claim, const std::vector<KeyLife>& lives, Complaints* wrong) {
  const auto own = std::find_if(lives.begin(), lives.end(), [&claim](const KeyLife& life) {
    return life.key == claim.key && life.created == claim.token;
  });
  if (own == lives.end()) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": there never was such a key"));
    return {};
  }
  if (own->lease != claim.lease) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": its key is on another lease"));
  }
  const bool says_so = claim.downgraded || PartsOf(claim, *own) == claim.wanted;
  if (!says_so || (claim.downgraded && own->rewritten == 0)) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": its key asks for something else"));
  }
  const TurnSpan turn = TurnOf(claim, *own, lives);
  const bool passed_over = turn.begun == 0 || (own->deleted != 0 && turn.begun >= own->deleted);
  if (passed_over || turn.from > claim.answered) {
    wrong->push_back(absl::StrCat("K5 ", Name(claim), ": granted at ", Seconds(claim.answered),
                                  " though older keys left no room until ", Seconds(turn.from)));
  } else if (own->until <= claim.asked) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": its key was gone when it asked"));
  }
  return turn;
}

void CheckTokens(const std::vector<const ClaimTrace*>& grants, Complaints* wrong) {
  for (size_t i = 0; i < grants.size(); ++i) {
    const ClaimTrace& after = *grants[i];
    if (after.downgraded) continue;  // no new one
    for (size_t j = 0; j < i; ++j) {
      const ClaimTrace& before = *grants[j];
      const bool apart = before.wanted + after.wanted > after.parts;
      if (apart ? after.token > before.token : after.token != before.token) continue;
      wrong->push_back(absl::StrCat("K1 ", Name(after), " is granted after token ", before.token));
      break;
    }
  }
}

// All that hold at the moment of a grant, and it, must fit. All of them: a handle that lasts too
// long may overlap any later one.
void CheckOverlaps(const std::vector<const ClaimTrace*>& grants, Complaints* wrong) {
  std::vector<const ClaimTrace*> held;
  for (const ClaimTrace* grant : grants) {
    std::erase_if(held, [grant](const ClaimTrace* h) { return h->invalid <= grant->answered; });
    int64_t taken = grant->wanted;
    const ClaimTrace* longest = nullptr;
    for (const ClaimTrace* holder : held) {
      taken += holder->wanted;
      if (longest == nullptr || holder->invalid > longest->invalid) longest = holder;
    }
    if (taken > grant->parts && longest != nullptr) {
      wrong->push_back(absl::StrCat("K3 ", Name(*longest), " is held until ",
                                    Seconds(longest->invalid), ", and ", Name(*grant), " from ",
                                    Seconds(grant->answered), ", and there is no room for both"));
    }
    if (grant->invalid > grant->answered) held.push_back(grant);
  }
}

void CheckLeftovers(const ClaimTrace& claim, const RecipeHistory& history,
                    const std::vector<KeyLife>& lives, Complaints* wrong) {
  if (claim.over == kNever || claim.over < history.calm) return;
  const Instant gone_by = claim.over + kLeftMax;
  // The next claim of the same session puts the same key again.
  Instant next = kNever;
  for (const ClaimTrace& other : history.claims) {
    if (other.key == claim.key && other.asked >= claim.over) next = std::min(next, other.asked);
  }
  if (next <= gone_by || history.end < gone_by) return;
  for (const KeyLife& life : lives) {
    if (life.key == claim.key && life.from < gone_by && life.until > gone_by) {
      wrong->push_back(absl::StrCat("K6 process ", claim.process, " was told at ",
                                    Seconds(claim.over), " that it does not have ", claim.name,
                                    ", and its key stays until ", Seconds(life.until)));
    }
  }
}

// A MultiLock is granted with all its names or with none, by one token, and there is a moment at
// which it owned them all.
void CheckTogether(const RecipeHistory& history, const std::map<int, TurnSpan>& turns,
                   Complaints* wrong) {
  std::map<int, const ClaimTrace*> first;
  for (const ClaimTrace& claim : history.claims) {
    if (claim.together == 0) continue;
    const ClaimTrace& one = *first.emplace(claim.together, &claim).first->second;
    if (claim.granted != one.granted || claim.token != one.token || claim.invalid != one.invalid) {
      wrong->push_back(absl::StrCat("K2 ", Name(claim), ": other than ", Name(one),
                                    ", which it is granted with"));
    }
  }
  for (const auto& [number, turn] : turns) {
    if (turn.from < turn.until) continue;
    wrong->push_back(absl::StrCat("K2 ", Name(*first.at(number)), " and the names it goes with ",
                                  "were never owned all at once"));
  }
}

}  // namespace

// ---- Locks and elections -----------------------------------------------------------------------

Complaints CheckClaims(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  std::map<std::string, const ClaimTrace*> names;
  for (const ClaimTrace& claim : history.claims) names.emplace(claim.name, &claim);
  std::map<int, TurnSpan> together;
  for (const auto& [name, any] : names) {
    const std::vector<KeyLife> lives = LivesUnder(truth, QueueOf(*any));
    std::vector<const ClaimTrace*> grants;
    for (const ClaimTrace& claim : history.claims) {
      if (claim.name != name) continue;
      CheckLeftovers(claim, history, lives, &wrong);
      if (!claim.granted) continue;
      const TurnSpan turn = CheckGrant(claim, lives, &wrong);
      grants.push_back(&claim);
      if (claim.together == 0) continue;
      TurnSpan& common = together.try_emplace(claim.together, turn).first->second;
      common.from = std::max(common.from, turn.from);
      common.until = std::min(common.until, turn.until);
    }
    std::stable_sort(grants.begin(), grants.end(), [](const ClaimTrace* a, const ClaimTrace* b) {
      return a->answered < b->answered;
    });
    CheckTokens(grants, &wrong);
    CheckOverlaps(grants, &wrong);
    for (const KeyLife& life : lives) {
      if (life.deleted == 0 && history.end != kNever) {
        wrong.push_back(absl::StrCat("K6 the key ", life.key, " is left in the end"));
      }
    }
  }
  CheckTogether(history, together, &wrong);
  return wrong;
}

Complaints CheckFencing(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  std::map<std::pair<std::string, int64_t>, std::string> key_of;  // by fenced key and token
  for (const ClaimTrace& claim : history.claims) {
    if (claim.granted) key_of[{absl::StrCat("fenced/", claim.name), claim.token}] = claim.key;
  }
  std::map<std::string, int64_t> created;  // of live keys
  std::map<std::string, int64_t> newest;   // token, by fenced key
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (write.tombstone) {
        created.erase(write.key);
        continue;
      }
      created.try_emplace(write.key, revision.revision);
      if (!write.key.starts_with("fenced/")) continue;
      const int64_t token = Number(write.value);
      const auto key = key_of.find({write.key, token});
      const auto live = key == key_of.end() ? created.end() : created.find(key->second);
      if (live == created.end() || live->second != token) {
        wrong.push_back(absl::StrCat("K4 a write of token ", token, " to ", write.key,
                                     " was taken at revision ", revision.revision,
                                     " when that claim had gone"));
      }
      if (token < newest[write.key]) {
        wrong.push_back(absl::StrCat("K4 a write of token ", token, " to ", write.key,
                                     " was taken after one of ", newest[write.key]));
      }
      newest[write.key] = std::max(newest[write.key], token);
    }
  }
  return wrong;
}

Complaints CheckObserver(const TrueHistory& truth, const ObserverTrace& observer) {
  using Leader = std::optional<LeaderSeen>;
  // Every leader that there was, from which revision on.
  std::vector<std::pair<int64_t, Leader>> all = {{0, std::nullopt}};
  std::map<std::string, LeaderSeen> candidates;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (!write.key.starts_with(observer.prefix)) continue;
      if (write.tombstone) {
        candidates.erase(write.key);
      } else {
        candidates[write.key] = {write.key, write.value, write.lease, write.create_revision};
      }
    }
    Leader leader;
    for (const auto& [key, candidate] : candidates) {
      if (!leader.has_value() || candidate.term < leader->term) leader = candidate;
    }
    if (leader != all.back().second) all.push_back({revision.revision, leader});
  }
  const auto at = [&all](int64_t revision) {
    auto after = std::upper_bound(all.begin(), all.end(), revision,
                                  [](int64_t r, const auto& entry) { return r < entry.first; });
    return std::prev(after)->second;
  };
  Complaints wrong;
  std::optional<Leader> last;
  int64_t heard = 0;
  for (const ObserverTrace::Batch& batch : observer.batches) {
    std::vector<Leader> expected;
    if (batch.resynced || !last.has_value()) {
      const Leader leader = at(batch.revision);
      if (!last.has_value() || leader != *last) expected.push_back(leader);
    } else {
      for (const auto& [revision, leader] : all) {
        if (revision > heard && revision <= batch.revision) expected.push_back(leader);
      }
    }
    if (batch.revision < heard) {
      wrong.push_back(
          absl::StrCat("K7 it goes back from revision ", heard, " to ", batch.revision));
    }
    if (batch.changes != expected) {
      wrong.push_back(absl::StrCat(
          "K7 in revisions ", heard + 1, " to ", batch.revision, " it hears ", batch.changes.size(),
          " changes of the leader, of ", expected.size(), ", or other ones"));
      return wrong;
    }
    if (!batch.changes.empty()) last = batch.changes.back();
    heard = std::max(heard, batch.revision);
  }
  if (observer.must_be_complete && (!last.has_value() || *last != all.back().second)) {
    wrong.push_back(
        absl::StrCat("K7 it has not heard of the last leader, of revision ", all.back().first));
  }
  return wrong;
}

// ---- Leases ------------------------------------------------------------------------------------

namespace {

// When the first member had applied the end of a lease: of the keys that nobody deletes.
struct LeaseEnd {
  Instant at = kNever;
  std::set<int64_t> revisions;
  bool all_gone = true;
};

// Until when it lives at least, by the fastest clock of a member, and by what was told up to `now`.
Instant PromisedUntil(const LeaseTrace& lease, Instant now) {
  Instant sent = lease.granted;
  for (const LeaseTrace::Renewal& renewal : lease.renewals) {
    if (renewal.returned <= now) sent = std::max(sent, renewal.sent);
  }
  return sent + lease.ttl - 2 * lease.ttl * kClockDriftPpmMax / 1'000'000;
}

void CheckBeliefs(const LeaseTrace& lease, Complaints* wrong) {
  for (const LeaseTrace::Belief& belief : lease.beliefs) {
    const Instant promised = PromisedUntil(lease, belief.told);
    if (belief.until <= promised) continue;
    wrong->push_back(absl::StrCat("L6 a session believes in lease ", lease.id, " until ",
                                  Seconds(belief.until), ", promised until ", Seconds(promised)));
    return;
  }
}

void CheckLease(const LeaseTrace& lease, const LeaseEnd& end, const RecipeHistory& history,
                Complaints* wrong) {
  for (const LeaseTrace::Renewal& renewal : lease.renewals) {
    if (renewal.sent <= end.at) continue;
    wrong->push_back(absl::StrCat("L4 lease ", lease.id, " was renewed at ", Seconds(renewal.sent),
                                  ", and had ended at ", Seconds(end.at)));
  }
  const Instant promised = PromisedUntil(lease, kNever);
  if (end.at < promised && end.at < lease.revoked) {
    wrong->push_back(absl::StrCat("L1 lease ", lease.id, " ended at ", Seconds(end.at),
                                  ", promised until ", Seconds(promised)));
  }
  if (lease.told_gone < end.at) {
    wrong->push_back(absl::StrCat("L7 lease ", lease.id, " was called gone at ",
                                  Seconds(lease.told_gone), ", and ended at ", Seconds(end.at)));
  }
  if (end.revisions.size() > 1) {
    wrong->push_back(absl::StrCat("L3 what hung on lease ", lease.id, " went in ",
                                  end.revisions.size(), " revisions"));
  }
  if (history.calm == kNever) return;
  // A lease's time stands while nobody leads, so it may begin anew with the calm.
  const Instant due = std::max(lease.last_attempt, history.calm) + lease.ttl + kExpiryGrace;
  if (end.at > due && history.end > due) {
    wrong->push_back(absl::StrCat("L2 lease ", lease.id, " of TTL ", lease.ttl / seconds(1),
                                  " s, last renewed at ", Seconds(lease.last_attempt),
                                  ", ended at ", Seconds(end.at)));
  }
}

}  // namespace

Complaints CheckLeases(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  std::map<std::string, int64_t> owner;
  for (const auto& [id, lease] : history.leases) {
    for (const std::string& mark : lease.marks) owner[mark] = id;
  }
  std::map<int64_t, LeaseEnd> ends;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      const auto known = owner.find(write.key);
      if (known == owner.end() || !write.tombstone) continue;
      LeaseEnd& end = ends[known->second];
      end.at = std::min(end.at, revision.applied);
      end.revisions.insert(revision.revision);
      for (const auto& [from, to] : history.outages) {
        if (revision.applied <= from + kOutageGrace || revision.applied >= to) continue;
        wrong.push_back(absl::StrCat("L5 lease ", known->second, " ended at ",
                                     Seconds(revision.applied), ", when no majority was up"));
      }
    }
  }
  for (const auto& [id, lease] : history.leases) {
    CheckBeliefs(lease, &wrong);
    if (!lease.marks.empty()) CheckLease(lease, ends[id], history, &wrong);
  }
  return wrong;
}

// ---- Discovery ---------------------------------------------------------------------------------

Complaints CheckView(const TrueHistory& truth, const ViewTrace& trace, Instant end) {
  Complaints wrong;
  std::set<std::string> keys;
  size_t next = 0;
  int64_t last = 0;
  for (const ViewTrace::View& view : trace.views) {
    if (view.revision < last) {
      wrong.push_back(absl::StrCat("D1 the view goes back from ", last, " to ", view.revision));
      return wrong;
    }
    last = view.revision;
    for (; next < truth.size() && truth[next].revision <= view.revision; ++next) {
      for (const Write& write : truth[next].writes) {
        if (!write.key.starts_with(trace.prefix)) continue;
        if (write.tombstone) {
          keys.erase(write.key);
        } else {
          keys.insert(write.key);
        }
      }
    }
    if (!std::equal(keys.begin(), keys.end(), view.keys.begin(), view.keys.end())) {
      wrong.push_back(absl::StrCat("D1 at revision ", view.revision, " the view has ",
                                   view.keys.size(), " instances, the registry ", keys.size(),
                                   ", or other ones"));
      return wrong;
    }
  }
  if (trace.attentive_from == kNever && !trace.must_be_complete) return wrong;
  // Each change of the set of keys, and when the view had it.
  struct Change {
    const TrueRevision* revision;
    std::vector<std::string> keys;  // from then on
  };
  std::vector<Change> changes;
  std::set<std::string> present;
  for (const TrueRevision& revision : truth) {
    bool changed = false;
    for (const Write& write : revision.writes) {
      if (!write.key.starts_with(trace.prefix)) continue;
      changed |= write.tombstone ? present.erase(write.key) > 0 : present.insert(write.key).second;
    }
    if (changed) changes.push_back({&revision, {present.begin(), present.end()}});
  }
  for (auto change = changes.begin(); change != changes.end(); ++change) {
    const TrueRevision& revision = *change->revision;
    const auto seen = std::find_if(
        trace.views.begin(), trace.views.end(),
        [&revision](const ViewTrace::View& view) { return view.revision >= revision.revision; });
    const Instant at = seen == trace.views.end() ? kNever : seen->at;
    const Instant due = std::max(revision.applied, trace.attentive_from) + kViewLagMax;
    const bool late = trace.attentive_from != kNever && at > due && end > due;
    const bool missing = trace.must_be_complete && at == kNever;
    if (!late && !missing) continue;
    // What leaves the set as it was before needs no new view.
    const Instant by = late ? due : end;
    const auto later = std::find_if(trace.views.begin(), trace.views.end(),
                                    [by](const ViewTrace::View& view) { return view.at > by; });
    const bool shown = later != trace.views.begin() &&
                       std::any_of(change, changes.end(), [&](const Change& undone) {
                         return undone.revision->applied < by && undone.keys == later[-1].keys;
                       });
    if (shown) continue;
    wrong.push_back(absl::StrCat("D1 revision ", revision.revision, " of ",
                                 Seconds(revision.applied), " is seen at ", Seconds(at)));
  }
  return wrong;
}

namespace {

// Until when the cluster has promised to keep a lease; kNever if it was not the client's own.
Instant Promised(const KeyLife& life, const RecipeHistory& history) {
  const auto lease = history.leases.find(life.last_lease);
  return lease == history.leases.end() ? kNever : PromisedUntil(lease->second, kNever);
}

// What an instance wrote may arrive when the next one at its address is there already.
bool IsEarlierOnes(const KeyLife& life, const InstanceTrace& instance,
                   const RecipeHistory& history) {
  const auto lease = history.leases.find(life.lease);
  return lease != history.leases.end() && lease->second.granted < instance.started;
}

// The cluster served it no renewal for a whole TTL: then nobody can keep a lease.
bool Unserved(const KeyLife& life, const RecipeHistory& history) {
  return life.until < history.calm && life.until >= Promised(life, history);
}

// Whatever became of its leases before.
void CheckIsBack(const InstanceTrace& instance, const std::vector<KeyLife>& lives,
                 const RecipeHistory& history, Complaints* wrong) {
  if (history.calm == kNever) return;
  const Instant due = std::max(history.calm, instance.started) + kBackWithin +
                      (instance.disturbed ? Duration(0) : kBackPastTheSilent);
  if (instance.stopped <= due || history.end <= due) return;
  const bool there = std::any_of(lives.begin(), lives.end(), [&](const KeyLife& life) {
    return life.key == instance.key && life.from <= due && life.until > due;
  });
  if (there) return;
  wrong->push_back(absl::StrCat("D3 the instance ", instance.key, ", started at ",
                                Seconds(instance.started), ", is not there at ", Seconds(due)));
}

}  // namespace

Complaints CheckInstances(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  for (const InstanceTrace& instance : history.instances) {
    const std::vector<KeyLife> lives = LivesUnder(truth, instance.key);
    CheckIsBack(instance, lives, history, &wrong);
    const Instant due = std::max(instance.stopped == kNever ? kNever - instance.ttl - kExpiryGrace
                                                            : instance.stopped,
                                 history.calm) +
                        instance.ttl + kExpiryGrace;
    for (const KeyLife& life : lives) {
      if (life.key != instance.key || life.from < instance.started) continue;
      if (!instance.disturbed && life.until < instance.stopped && life.from < instance.stopped &&
          !IsEarlierOnes(life, instance, history) && !Unserved(life, history)) {
        wrong.push_back(absl::StrCat("D2 the healthy instance ", instance.key, " leaves at ",
                                     Seconds(life.until), ", lease ", life.last_lease,
                                     " promised until ", Seconds(Promised(life, history)),
                                     ", calm from ", Seconds(history.calm)));
      }
    }
    // The next one at the same address may have put it again.
    const bool again = std::any_of(history.instances.begin(), history.instances.end(),
                                   [&](const InstanceTrace& other) {
                                     return other.key == instance.key &&
                                            other.started > instance.started && other.started < due;
                                   });
    if (instance.stopped == kNever || again || history.calm == kNever || history.end < due)
      continue;
    for (const KeyLife& life : lives) {
      if (life.key == instance.key && life.from < due && life.until > due) {
        wrong.push_back(absl::StrCat("D2 the instance ", instance.key, " stopped at ",
                                     Seconds(instance.stopped), ", and stays until ",
                                     Seconds(life.until)));
      }
    }
  }
  return wrong;
}

}  // namespace conclave::sim
