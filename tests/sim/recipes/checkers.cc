#include "conclave/tests/sim/recipes/checkers.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kLeftMax = seconds(1);  // K6
constexpr Duration kViewLagMax = seconds(1);
// Beyond a TTL: an election, the checkpoints' lag, and a second.
constexpr Duration kExpiryGrace = seconds(4);
// What was committed before an outage may be applied at its beginning.
constexpr Duration kOutageGrace = seconds(1);

std::string Seconds(Instant at) {
  if (at == kNever) return "never";
  return absl::StrCat(std::chrono::duration<double>(at.time_since_epoch()).count(), " s");
}

// One existence of a key.
struct KeyLife {
  std::string key;
  int64_t created = 0;  // revision
  int64_t lease = 0;    // as of its creation
  int64_t last_lease = 0;
  Instant from;
  int64_t deleted = 0;  // revision; 0: it is there in the end
  Instant until = kNever;
};

// All existences of keys under a prefix, in the order of their creation.
std::vector<KeyLife> LivesUnder(const TrueHistory& truth, const std::string& prefix) {
  std::vector<KeyLife> lives;
  std::map<std::string, size_t> live;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (!write.key.starts_with(prefix)) continue;
      const auto known = live.find(write.key);
      if (write.tombstone) {
        if (known == live.end()) continue;
        lives[known->second].deleted = revision.revision;
        lives[known->second].until = revision.applied;
        live.erase(known);
      } else if (known == live.end()) {
        live[write.key] = lives.size();
        lives.push_back({write.key, revision.revision, write.lease, write.lease, revision.applied});
      } else {
        lives[known->second].last_lease = write.lease;
      }
    }
  }
  return lives;
}

std::string Name(const ClaimTrace& claim) {
  return absl::StrCat("process ", claim.process, ", token ", claim.token, " of ", claim.name);
}

void CheckGrant(const ClaimTrace& claim, const std::vector<KeyLife>& lives, Complaints* wrong) {
  const auto own = std::find_if(lives.begin(), lives.end(), [&claim](const KeyLife& life) {
    return life.key == claim.key && life.created == claim.token;
  });
  if (own == lives.end()) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": there never was such a key"));
    return;
  }
  if (own->lease != claim.lease) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": its key is on another lease"));
  }
  Instant first_from = own->from;
  bool passed_over = false;
  for (auto other = lives.begin(); other != own; ++other) {
    if (other->deleted != 0 && other->deleted < own->created) continue;
    first_from = std::max(first_from, other->until);
    passed_over |= other->deleted == 0 || (own->deleted != 0 && other->deleted >= own->deleted);
  }
  if (passed_over || first_from > claim.answered) {
    wrong->push_back(absl::StrCat("K5 ", Name(claim), ": granted at ", Seconds(claim.answered),
                                  " though an older key was there until ", Seconds(first_from)));
  } else if (own->until <= claim.asked) {
    wrong->push_back(absl::StrCat("K2 ", Name(claim), ": its key was gone when it asked"));
  }
}

void CheckSequence(const std::vector<const ClaimTrace*>& grants, Complaints* wrong) {
  for (size_t i = 1; i < grants.size(); ++i) {
    const ClaimTrace& before = *grants[i - 1];
    const ClaimTrace& after = *grants[i];
    if (after.token <= before.token) {
      wrong->push_back(absl::StrCat("K1 ", Name(after), " is granted after token ", before.token));
    }
  }
  // All pairs: a handle that lasts too long may overlap any later one.
  Instant valid_until{};
  const ClaimTrace* longest = nullptr;
  for (const ClaimTrace* grant : grants) {
    if (longest != nullptr && valid_until > grant->answered) {
      wrong->push_back(absl::StrCat("K3 ", Name(*longest), " is held until ", Seconds(valid_until),
                                    ", and ", Name(*grant), " from ", Seconds(grant->answered)));
    }
    if (longest == nullptr || grant->invalid > valid_until) {
      valid_until = grant->invalid;
      longest = grant;
    }
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

int64_t Number(const std::string& text) {
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

// ---- Locks and elections -----------------------------------------------------------------------

Complaints CheckClaims(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  std::set<std::string> names;
  for (const ClaimTrace& claim : history.claims) names.insert(claim.name);
  for (const std::string& name : names) {
    const std::vector<KeyLife> lives = LivesUnder(truth, name + "/");
    std::vector<const ClaimTrace*> grants;
    for (const ClaimTrace& claim : history.claims) {
      if (claim.name != name) continue;
      CheckLeftovers(claim, history, lives, &wrong);
      if (!claim.granted) continue;
      CheckGrant(claim, lives, &wrong);
      grants.push_back(&claim);
    }
    std::stable_sort(grants.begin(), grants.end(), [](const ClaimTrace* a, const ClaimTrace* b) {
      return a->answered < b->answered;
    });
    CheckSequence(grants, &wrong);
    for (const KeyLife& life : lives) {
      if (life.deleted == 0 && history.end != kNever) {
        wrong.push_back(absl::StrCat("K6 the key ", life.key, " is left in the end"));
      }
    }
  }
  return wrong;
}

Complaints CheckFencing(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  std::map<int64_t, std::string> key_of;  // by token
  for (const ClaimTrace& claim : history.claims) {
    if (claim.granted) key_of[claim.token] = claim.key;
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
      const auto key = key_of.find(token);
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

void CheckLease(const LeaseTrace& lease, const LeaseEnd& end, const RecipeHistory& history,
                Complaints* wrong) {
  Instant promised = lease.granted + lease.ttl;
  for (const LeaseTrace::Renewal& renewal : lease.renewals) {
    promised = std::max(promised, renewal.sent + lease.ttl);
    if (renewal.sent > end.at) {
      wrong->push_back(absl::StrCat("L4 lease ", lease.id, " was renewed at ",
                                    Seconds(renewal.sent), ", and had ended at ", Seconds(end.at)));
    }
  }
  if (end.at < promised && end.at < lease.revoked) {
    wrong->push_back(absl::StrCat("L1 lease ", lease.id, " ended at ", Seconds(end.at),
                                  ", promised until ", Seconds(promised)));
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
  std::set<std::string> present;
  for (const TrueRevision& revision : truth) {
    bool changed = false;
    for (const Write& write : revision.writes) {
      if (!write.key.starts_with(trace.prefix)) continue;
      changed |= write.tombstone ? present.erase(write.key) > 0 : present.insert(write.key).second;
    }
    if (!changed) continue;
    const auto seen = std::find_if(
        trace.views.begin(), trace.views.end(),
        [&revision](const ViewTrace::View& view) { return view.revision >= revision.revision; });
    const Instant at = seen == trace.views.end() ? kNever : seen->at;
    const Instant due = std::max(revision.applied, trace.attentive_from) + kViewLagMax;
    const bool late = trace.attentive_from != kNever && at > due && end > due;
    if (late || (trace.must_be_complete && at == kNever)) {
      wrong.push_back(absl::StrCat("D1 revision ", revision.revision, " of ",
                                   Seconds(revision.applied), " is seen at ", Seconds(at)));
    }
  }
  return wrong;
}

namespace {

// The cluster served it no renewal for a whole TTL: then nobody can keep a lease.
bool Unserved(const KeyLife& life, const RecipeHistory& history) {
  const auto lease = history.leases.find(life.last_lease);
  if (lease == history.leases.end() || life.until >= history.calm) return false;
  Instant promised = lease->second.granted + lease->second.ttl;
  for (const LeaseTrace::Renewal& renewal : lease->second.renewals) {
    promised = std::max(promised, renewal.sent + lease->second.ttl);
  }
  return life.until >= promised;
}

}  // namespace

Complaints CheckInstances(const TrueHistory& truth, const RecipeHistory& history) {
  Complaints wrong;
  for (const InstanceTrace& instance : history.instances) {
    const std::vector<KeyLife> lives = LivesUnder(truth, instance.key);
    const Instant due = std::max(instance.stopped == kNever ? kNever - instance.ttl - kExpiryGrace
                                                            : instance.stopped,
                                 history.calm) +
                        instance.ttl + kExpiryGrace;
    for (const KeyLife& life : lives) {
      if (life.key != instance.key || life.from < instance.started) continue;
      if (!instance.disturbed && life.until < instance.stopped && life.from < instance.stopped &&
          !Unserved(life, history)) {
        wrong.push_back(absl::StrCat("D2 the healthy instance ", instance.key, " leaves at ",
                                     Seconds(life.until)));
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
