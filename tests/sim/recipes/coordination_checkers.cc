#include "conclave/tests/sim/recipes/coordination_checkers.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/tests/sim/recipes/key_lives.h"

namespace conclave::sim {
namespace {

bool Done(const CallTrace& call) { return call.outcome == Outcome::kDone; }
bool May(const CallTrace& call) { return call.outcome != Outcome::kRefused; }
bool During(const CallTrace& call, Instant at) { return call.asked <= at && at <= call.answered; }
bool There(const KeyLife& life, int64_t revision) {
  return life.created <= revision && (life.deleted == 0 || life.deleted > revision);
}

// The part of a key behind the prefix that all `lives` have.
std::map<std::string, std::vector<const KeyLife*>> ById(const std::vector<KeyLife>& lives,
                                                        const std::string& prefix) {
  std::map<std::string, std::vector<const KeyLife*>> all;
  for (const KeyLife& life : lives) all[life.key.substr(prefix.size())].push_back(&life);
  return all;
}

}  // namespace

// ---- Numbers -----------------------------------------------------------------------------------

Complaints CheckCounter(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  std::map<int64_t, const AddTrace*> by_delta;
  for (const AddTrace& add : history.adds) by_delta[add.delta] = &add;
  std::set<const AddTrace*> seen;
  int64_t value = 0;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (write.key != kCounterName) continue;
      const int64_t next = Number(write.value);
      const int64_t delta = next - std::exchange(value, next);
      const auto found = by_delta.find(delta);
      const AddTrace* add = found == by_delta.end() ? nullptr : found->second;
      const auto complain = [&](const char* what) {
        wrong.push_back(absl::StrCat("N1 at revision ", revision.revision, " the counter grows by ",
                                     delta, " to ", next, ", ", what));
      };
      if (write.tombstone || add == nullptr || !May(add->call)) {
        complain("which nobody added");
        continue;
      }
      if (!seen.insert(add).second) complain("for the second time");
      // What nobody has heard of may come late.
      if (Done(add->call) ? !During(add->call, revision.applied)
                          : add->call.asked > revision.applied) {
        complain("when nobody was adding that");
      }
      if (Done(add->call) && add->value != next) {
        complain(absl::StrCat("and the answer was ", add->value).c_str());
      }
    }
  }
  for (const AddTrace& add : history.adds) {
    if (Done(add.call) && !seen.contains(&add)) {
      wrong.push_back(absl::StrCat("N1 the acknowledged addition of ", add.delta, " is missing"));
    }
  }
  return wrong;
}

Complaints CheckIds(const CoordinationHistory& history) {
  Complaints wrong;
  std::map<int, int64_t> last;
  for (const IdsTrace& ids : history.ids) {
    const bool good = ids.begin < ids.end && ids.begin >= 1;
    const auto known = last.find(ids.allocator);
    if (!good || (known != last.end() && ids.begin < known->second)) {
      wrong.push_back(absl::StrCat("N2 the ids ", ids.begin, " to ", ids.end, " of ", ids.allocator,
                                   " are none, or come after greater ones"));
    }
    last[ids.allocator] = ids.end;
  }
  std::deque<IdsTrace> all = history.ids;
  std::sort(all.begin(), all.end(),
            [](const IdsTrace& a, const IdsTrace& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].begin >= all[i - 1].end) continue;
    wrong.push_back(absl::StrCat("N2 the id ", all[i].begin, " is given to ", all[i].allocator,
                                 " and to ", all[i - 1].allocator));
  }
  return wrong;
}

// ---- Queue -------------------------------------------------------------------------------------

namespace {

using Settling = SeizeTrace::Settling;

struct QueueTruth {
  explicit QueueTruth(const TrueHistory& truth)
      : items(LivesUnder(truth, kItems)), marks(LivesUnder(truth, kMarks)) {
    for (const KeyLife& item : items) by_id[IdOf(item)] = &item;
    marks_of = ById(marks, kMarks);
  }
  std::string IdOf(const KeyLife& item) const { return item.key.substr(kItems.size()); }

  const std::string kItems = absl::StrCat(kQueueName, "/item/");
  const std::string kMarks = absl::StrCat(kQueueName, "/item-taken/");
  const std::vector<KeyLife> items;
  const std::vector<KeyLife> marks;
  std::map<std::string, const KeyLife*> by_id;  // ids are never used again
  std::map<std::string, std::vector<const KeyLife*>> marks_of;
};

void CheckPushes(const QueueTruth& queue, const CoordinationHistory& history, Complaints* wrong) {
  std::map<std::string, const PushTrace*> by_value;
  for (const PushTrace& push : history.pushes) {
    by_value[push.value] = &push;
    if (!Done(push.call)) continue;
    const auto item = queue.by_id.find(push.id);
    if (item == queue.by_id.end() || item->second->value != push.value ||
        !During(push.call, item->second->from)) {
      wrong->push_back(absl::StrCat("Q1 ", push.value, " was pushed, and is not there as ", push.id,
                                    " by then"));
    }
    for (const PushTrace& later : history.pushes) {
      if (Done(later.call) && later.priority == push.priority &&
          later.call.asked > push.call.answered && later.id <= push.id) {
        wrong->push_back(absl::StrCat("Q3 ", later.value, " is before ", push.value,
                                      " which was pushed before"));
      }
    }
  }
  std::set<std::string> values;
  for (const KeyLife& item : queue.items) {
    const auto push = by_value.find(item.value);
    if (push == by_value.end() || !May(push->second->call) || !values.insert(item.value).second) {
      wrong->push_back(
          absl::StrCat("Q1 ", item.key, " is there, and nobody pushed it, or only once"));
    }
  }
}

// Who is known to have removed each item, and that somebody may have removed the others.
void CheckRemovals(const QueueTruth& queue, const CoordinationHistory& history, Complaints* wrong) {
  std::map<std::string, std::vector<const CallTrace*>> known;  // by id
  std::vector<const CallTrace*> unknown_pops;
  for (const SeizeTrace& seize : history.seizes) {
    if (!seize.takes && Done(seize.call)) known[seize.id].push_back(&seize.call);
    if (!seize.takes && seize.call.outcome == Outcome::kUnknown) {
      unknown_pops.push_back(&seize.call);
    }
    if (seize.settling == Settling::kAck && Done(seize.settle)) {
      known[seize.id].push_back(&seize.settle);
    }
  }
  for (const auto& [id, calls] : known) {
    const auto item = queue.by_id.find(id);
    if (calls.size() > 1) {
      wrong->push_back(absl::StrCat("Q2 ", id, " is done with by ", calls.size()));
    }
    if (item == queue.by_id.end() || !During(*calls.front(), item->second->until)) {
      wrong->push_back(absl::StrCat("Q1 ", id, " is done with, and does not go then"));
    }
  }
  // In the order in which they went: a call that may have removed this one may have removed any
  // later one too, so whoever comes first takes it.
  std::vector<KeyLife> gone = queue.items;
  std::erase_if(gone, [](const KeyLife& item) { return item.deleted == 0; });
  std::ranges::stable_sort(gone, {}, &KeyLife::until);
  for (const KeyLife& item : gone) {
    const std::string id = queue.IdOf(item);
    if (known.contains(id)) continue;
    const bool maybe_acked =
        std::any_of(history.seizes.begin(), history.seizes.end(), [&](const SeizeTrace& seize) {
          return seize.id == id && seize.settling == Settling::kAck &&
                 seize.settle.outcome == Outcome::kUnknown && seize.settle.asked <= item.until;
        });
    if (maybe_acked) continue;
    const auto pop =
        std::find_if(unknown_pops.begin(), unknown_pops.end(),
                     [&item](const CallTrace* call) { return call->asked <= item.until; });
    if (pop == unknown_pops.end()) {
      wrong->push_back(absl::StrCat("Q1 ", item.key, " is lost at ", Seconds(item.until)));
    } else {
      unknown_pops.erase(pop);
    }
  }
}

// At which revision a seizure that was answered took place; 0: it did not.
int64_t SeizedAt(const QueueTruth& queue, const SeizeTrace& seize) {
  const auto item = queue.by_id.find(seize.id);
  if (item == queue.by_id.end() || item->second->value != seize.value) return 0;
  if (!seize.takes) return item->second->deleted;
  const auto marks = queue.marks_of.find(seize.id);
  if (marks == queue.marks_of.end()) return 0;
  for (const KeyLife* mark : marks->second) {
    if (mark->lease == seize.lease && During(seize.call, mark->from)) return mark->created;
  }
  return 0;
}

void CheckPlace(const QueueTruth& queue, const SeizeTrace& seize, int64_t seized,
                Complaints* wrong) {
  for (const auto& [id, item] : queue.by_id) {
    if (id >= seize.id) return;
    if (item->from > seize.call.asked || !There(*item, seized)) continue;
    const auto marks = queue.marks_of.find(id);
    const bool taken =
        marks != queue.marks_of.end() &&
        std::any_of(marks->second.begin(), marks->second.end(), [&](const KeyLife* mark) {
          return mark->created <= seized && mark->until >= seize.call.asked;
        });
    if (taken) continue;
    wrong->push_back(absl::StrCat("Q3 ", seize.id, " was got, and ", id, " was free since ",
                                  Seconds(item->from)));
  }
}

void CheckSeizures(const QueueTruth& queue, const CoordinationHistory& history, Complaints* wrong) {
  for (const SeizeTrace& seize : history.seizes) {
    if (!Done(seize.call)) continue;
    const int64_t seized = SeizedAt(queue, seize);
    if (seized == 0) {
      wrong->push_back(absl::StrCat("Q2 ", seize.id, " was got at ", Seconds(seize.call.answered),
                                    ", and the store does not know of it"));
      continue;
    }
    CheckPlace(queue, seize, seized, wrong);
    for (const SeizeTrace& other : history.seizes) {
      if (&other == &seize || !Done(other.call) || other.id != seize.id) continue;
      if (!seize.takes || other.call.answered <= seize.call.answered) continue;
      if (other.call.answered >= seize.last_ours) continue;
      wrong->push_back(absl::StrCat("Q2 ", seize.id, " is somebody's until ",
                                    Seconds(seize.last_ours), " and another one's from ",
                                    Seconds(other.call.answered)));
    }
  }
}

}  // namespace

Complaints CheckQueue(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  const QueueTruth queue(truth);
  CheckPushes(queue, history, &wrong);
  CheckRemovals(queue, history, &wrong);
  CheckSeizures(queue, history, &wrong);
  return wrong;
}

// ---- Barriers ----------------------------------------------------------------------------------

namespace {

void CheckOneWay(const TrueHistory& truth, const CoordinationHistory& history, Complaints* wrong) {
  const std::vector<KeyLife> lives = LivesUnder(truth, kBarrierName);
  std::vector<const CallTrace*> holds;
  for (const BarrierTrace& trace : history.barriers) {
    if (!Done(trace.call)) continue;
    if (trace.kind == BarrierTrace::Kind::kHold) {
      holds.push_back(&trace.call);
      continue;
    }
    for (const KeyLife& life : lives) {
      if (life.from <= trace.call.asked && life.until > trace.call.answered) {
        wrong->push_back(absl::StrCat("B1 passed at ", Seconds(trace.call.answered), ", held from ",
                                      Seconds(life.from), " to ", Seconds(life.until)));
      }
    }
  }
  // Each hold has a life of the key for itself.
  std::sort(holds.begin(), holds.end(),
            [](const CallTrace* a, const CallTrace* b) { return a->answered < b->answered; });
  std::set<int64_t> used;
  for (const CallTrace* hold : holds) {
    const auto own = std::find_if(lives.begin(), lives.end(), [&](const KeyLife& life) {
      return During(*hold, life.from) && !used.contains(life.created);
    });
    if (own == lives.end()) {
      wrong->push_back(absl::StrCat("B1 the barrier is held at ", Seconds(hold->answered),
                                    " by one who did not put it up"));
    } else {
      used.insert(own->created);
    }
  }
}

struct DoubleTruth {
  explicit DoubleTruth(const TrueHistory& truth)
      : ready(LivesUnder(truth, absl::StrCat(kDoubleBarrierName, "/ready"))),
        waiters(LivesUnder(truth, kWaiters)),
        left(LivesUnder(truth, kLeft)) {}

  static std::vector<std::string> MembersOf(const KeyLife& round) {
    return absl::StrSplit(round.value, ',', absl::SkipEmpty());
  }
  bool Waits(const std::string& id, int64_t revision) const {
    return std::any_of(waiters.begin(), waiters.end(), [&](const KeyLife& waiter) {
      return waiter.key == kWaiters + id && There(waiter, revision);
    });
  }
  bool LeftIn(const std::string& id, const KeyLife& round) const {
    return std::any_of(left.begin(), left.end(), [&](const KeyLife& mark) {
      return mark.key == kLeft + id && mark.created > round.created &&
             (round.deleted == 0 || mark.created < round.deleted);
    });
  }

  const std::string kWaiters = absl::StrCat(kDoubleBarrierName, "/waiters/");
  const std::string kLeft = absl::StrCat(kDoubleBarrierName, "/left/");
  const std::vector<KeyLife> ready;
  const std::vector<KeyLife> waiters;
  const std::vector<KeyLife> left;
};

// The round that somebody entered; null if there is none.
const KeyLife* EnteredRound(const DoubleTruth& barrier, const RoundTrace& trace) {
  const std::string id = absl::StrCat(absl::Hex(trace.lease));
  const KeyLife* entered = nullptr;
  for (const KeyLife& round : barrier.ready) {
    const std::vector<std::string> members = DoubleTruth::MembersOf(round);
    const bool ours = std::find(members.begin(), members.end(), id) != members.end();
    if (ours && round.from <= trace.enter.answered && round.until > trace.enter.asked) {
      entered = &round;
    }
  }
  return entered;
}

void CheckLeaving(const DoubleTruth& barrier, const RoundTrace& trace, const KeyLife& round,
                  Complaints* wrong) {
  const std::string who =
      absl::StrCat("B3 ", absl::Hex(trace.lease), " leaves at ", Seconds(trace.leave.answered));
  if (trace.round != round.created) {
    wrong->push_back(
        absl::StrCat(who, " the round ", trace.round, ", and entered ", round.created));
    return;
  }
  if (round.until > trace.leave.answered) {
    wrong->push_back(absl::StrCat(who, ", and the round ends at ", Seconds(round.until)));
    return;
  }
  std::vector<std::string> lost;
  for (const std::string& member : DoubleTruth::MembersOf(round)) {
    if (barrier.Waits(member, round.deleted)) {
      wrong->push_back(absl::StrCat(who, ", and ", member, " is still inside"));
    }
    if (!barrier.LeftIn(member, round)) lost.push_back(member);
  }
  if (trace.lost.has_value() && *trace.lost != lost) {
    wrong->push_back(absl::StrCat(who, ", and is told of ", trace.lost->size(), " lost ones, of ",
                                  lost.size(), ", or others"));
  }
}

}  // namespace

Complaints CheckBarriers(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  CheckOneWay(truth, history, &wrong);
  const DoubleTruth barrier(truth);
  for (const RoundTrace& trace : history.rounds) {
    if (!Done(trace.enter)) continue;
    const std::string who =
        absl::StrCat("B2 ", absl::Hex(trace.lease), " enters at ", Seconds(trace.enter.answered));
    const KeyLife* round = EnteredRound(barrier, trace);
    if (round == nullptr) {
      wrong.push_back(absl::StrCat(who, ", and there is no such round"));
      continue;
    }
    const std::vector<std::string> members = DoubleTruth::MembersOf(*round);
    if (members.size() != static_cast<size_t>(kDoubleBarrierMembers)) {
      wrong.push_back(absl::StrCat(who, " with ", members.size(), " members"));
    }
    for (const std::string& member : members) {
      if (barrier.Waits(member, round->created)) continue;
      wrong.push_back(absl::StrCat(who, ", and ", member, " was not there"));
    }
    if (Done(trace.leave)) CheckLeaving(barrier, trace, *round, &wrong);
  }
  return wrong;
}

// ---- Groups ------------------------------------------------------------------------------------

Complaints CheckMembers(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  const std::string prefix = absl::StrCat(kGroupName, "/");
  const std::vector<KeyLife> lives = LivesUnder(truth, prefix);
  for (const MemberTrace& member : history.members) {
    if (!Done(member.join)) continue;
    const std::string who = absl::StrCat("G1 ", member.id, " of lease ", member.lease);
    const auto own = std::find_if(lives.begin(), lives.end(), [&](const KeyLife& life) {
      return life.key == prefix + member.id && life.created == member.revision &&
             life.lease == member.lease;
    });
    if (own == lives.end() || own->from > member.join.answered || own->until <= member.join.asked) {
      wrong.push_back(absl::StrCat(who, " joins at ", Seconds(member.join.answered),
                                   ", and there is no such key"));
      continue;
    }
    for (const MemberTrace& other : history.members) {
      if (!Done(other.join) || other.id != member.id || other.lease == member.lease) continue;
      // Revisions say which of them was first: the answer of one that was over soon may come after
      // that of the next.
      if (other.revision <= member.revision || other.join.answered >= member.last_alive) continue;
      wrong.push_back(absl::StrCat(who, " is a member until ", Seconds(member.last_alive),
                                   ", and another one from ", Seconds(other.join.answered)));
    }
  }
  return wrong;
}

// ---- Cron --------------------------------------------------------------------------------------

Complaints CheckJobs(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  struct Settled {
    int64_t revision = 0;
    Instant at;
  };
  std::map<std::string, Settled> settled;  // by "<tick> <term>"
  std::string last;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (write.key != absl::StrCat(kCronName, "/last")) continue;
      const std::string tick = write.value.substr(0, write.value.find(' '));
      if (tick <= last) {
        wrong.push_back(absl::StrCat("T1 the tick ", tick, " is settled after ", last));
      }
      last = tick;
      settled[write.value] = {revision.revision, revision.applied};
    }
  }
  const std::vector<KeyLife> terms = LivesUnder(truth, absl::StrCat(kCronName, "/election/"));
  std::set<std::string> ran;
  for (const JobTrace& job : history.jobs) {
    const std::string tick = job.tick.substr(0, job.tick.find(' '));
    if (!ran.insert(tick).second) {
      wrong.push_back(absl::StrCat("T1 the tick ", tick, " runs again at ", Seconds(job.at)));
    }
    const auto record = settled.find(job.tick);
    if (record == settled.end() || record->second.at > job.at) {
      wrong.push_back(absl::StrCat("T2 the tick ", job.tick, " runs at ", Seconds(job.at),
                                   " without being settled"));
      continue;
    }
    const bool leads = std::any_of(terms.begin(), terms.end(), [&](const KeyLife& term) {
      return term.created == job.term && There(term, record->second.revision);
    });
    if (!leads || !job.tick.ends_with(absl::StrCat(" ", job.term))) {
      wrong.push_back(
          absl::StrCat("T2 the tick ", job.tick, " is settled by one who does not lead"));
    }
  }
  return wrong;
}

Complaints CheckCoordination(const TrueHistory& truth, const CoordinationHistory& history) {
  Complaints wrong;
  for (const Complaints& more :
       {CheckCounter(truth, history), CheckIds(history), CheckQueue(truth, history),
        CheckBarriers(truth, history), CheckMembers(truth, history), CheckJobs(truth, history)}) {
    wrong.insert(wrong.end(), more.begin(), more.end());
  }
  return wrong;
}

}  // namespace conclave::sim
