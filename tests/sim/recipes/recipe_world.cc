#include "conclave/tests/sim/recipes/recipe_world.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/sim/recipes/checkers.h"
#include "conclave/tests/sim/recipes/coordination_checkers.h"
#include "conclave/tests/sim/recipes/process.h"
#include "conclave/tests/sim/recipes/workloads.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kLockers = 4;
constexpr int kCandidates = 3;
constexpr int kProviders = 4;  // the last one is left alone by everything but the cluster's faults
constexpr int kWatchers = 2;
// Members elect, clients find them again, and what was asked of members before has its effect.
constexpr Duration kCalmDown = seconds(5);
constexpr Duration kServedBefore = seconds(2);
// Then all must go as it should, for so long.
constexpr Duration kCalmWork = seconds(6);
constexpr int64_t kDriftPpmMax = 500;
// What sets one world apart from the next is drawn from a stream of its own, so that what follows
// from the others stays as it is when there is more to choose from.
constexpr uint64_t kSwarmStream = 0x5eed0f5a5a5a5a5au;
constexpr uint64_t kLockings = 4;
constexpr uint64_t kCoordinations = 5;

class RecipeWorld : public Client {
 public:
  explicit RecipeWorld(Simulation* simulation)
      : simulation_(simulation), world_{simulation, &history_} {
    Prng swarm(simulation->seed() ^ kSwarmStream);
    const uint64_t choice = swarm.Below(kLockings + kCoordinations);
    if (choice < kLockings) {
      AddLockers(static_cast<Locking>(choice));
    } else {
      AddCoordinating(static_cast<Coordination>(choice - kLockings));
    }
    for (int i = 0; i < kCandidates; ++i) {
      Add([this](Process* p) { return MakeCandidate(world_, p); });
    }
    for (int i = 0; i < kWatchers; ++i) Add([this](Process* p) { return MakeWatcher(world_, p); });
    for (int i = 1; i <= kProviders; ++i) {
      Add([this, i](Process* p) {
        return MakeProvider(world_, p, i, /*left_alone=*/i == kProviders);
      });
    }
    for (Place& place : places_) Boot(place);
    Nemesis();
    WatchMajority();
  }

  ~RecipeWorld() override {
    for (Place& place : places_) {
      if (place.workload != nullptr) place.workload->Died();
    }
  }

  void Finish() override {
    // All have been served for a while.
    history_.calm = std::max(simulation_->healed_at() + kCalmDown,
                             simulation_->schedule().now() - kServedBefore);
    const Instant end = history_.calm + kCalmWork;
    LoseMinority(*places_.back().process, end - milliseconds(100));
    simulation_->schedule().At(end, [this] {
      for (Place& place : places_) {
        if (place.workload != nullptr) place.workload->Finish();
      }
    });
  }

  // All is put right.
  void Heal() override {
    for (Place& place : places_) {
      place.process->HealAll();
      place.process->Resume();
      if (!place.process->alive()) Boot(place);
    }
  }

  Complaints Check(const TrueHistory& truth) const override {
    RecipeHistory history = history_;
    history.end = simulation_->schedule().now();
    Complaints all = CheckClaims(truth, history);
    const auto add = [&all](const Complaints& more, const std::string& who = "") {
      for (const std::string& complaint : more) all.push_back(who + complaint);
    };
    add(CheckFencing(truth, history));
    add(CheckLeases(truth, history));
    add(CheckInstances(truth, history));
    add(CheckCoordination(truth, history.coordination));
    for (size_t i = 0; i < history.observers.size(); ++i) {
      add(CheckObserver(truth, history.observers[i]), absl::StrCat("observer ", i, ": "));
    }
    for (size_t i = 0; i < history.views.size(); ++i) {
      add(CheckView(truth, history.views[i], history.end), absl::StrCat("resolver ", i, ": "));
    }
    return all;
  }

  void Count(RecipeCounts* counts) const override {
    for (const ClaimTrace& claim : history_.claims) CountGrant(claim, counts);
    CountCoordination(history_.coordination, counts);
    counts->leases += history_.leases.size();
    for (const ViewTrace& view : history_.views) counts->views += view.views.size();
    for (const ObserverTrace& observer : history_.observers) {
      counts->leaders += observer.batches.size();
    }
    counts->faults += faults_;
  }

 private:
  using Make = std::function<std::unique_ptr<Workload>(Process*)>;
  struct Place {
    Make make;
    std::unique_ptr<Workload> workload;
    std::unique_ptr<Process> process;  // ends first, and calls back
  };

  Prng& prng() { return simulation_->prng(); }

  static void CountGrant(const ClaimTrace& claim, RecipeCounts* counts) {
    if (!claim.granted) return;
    ++counts->grants;
    if (claim.together != 0) ++counts->several;
    if (claim.kind == LockKind::kPermits) ++counts->permits;
    if (claim.kind != LockKind::kShared) return;
    ++(claim.downgraded ? counts->downgrades : claim.wanted == 1 ? counts->reads : counts->writes);
  }

  static void CountCoordination(const CoordinationHistory& history, RecipeCounts* counts) {
    const auto done = [](const CallTrace& call) { return call.outcome == Outcome::kDone ? 1 : 0; };
    for (const AddTrace& each : history.adds) counts->numbers += done(each.call);
    counts->numbers += history.ids.size();
    for (const SeizeTrace& each : history.seizes) counts->items += done(each.call);
    for (const BarrierTrace& each : history.barriers) counts->barriers += done(each.call);
    for (const RoundTrace& each : history.rounds) counts->rounds += done(each.leave);
    for (const MemberTrace& each : history.members) counts->members += done(each.join);
    counts->jobs += history.jobs.size();
  }

  void Add(Make make) {
    Place& place = places_.emplace_back();
    place.make = std::move(make);
    place.process =
        std::make_unique<Process>(simulation_, &history_, static_cast<int>(places_.size()),
                                  prng().Between(-kDriftPpmMax, kDriftPpmMax));
  }

  // A MultiLock among mutexes, which it excludes.
  void AddLockers(Locking what) {
    for (int i = 0; i < kLockers; ++i) {
      const bool mutex = what == Locking::kMultiLock && i % 2 == 0;
      Add([this, kind = mutex ? Locking::kMutex : what](Process* p) {
        return MakeLocker(world_, p, kind);
      });
    }
  }

  void AddCoordinating(Coordination what) {
    for (int i = 0; i < kLockers; ++i) {
      Add([this, what](Process* p) { return MakeCoordinating(world_, p, what); });
    }
  }

  void Boot(Place& place) {
    place.process->Boot();
    place.workload = place.make(place.process.get());
  }

  void Nemesis() {
    simulation_->schedule().After(milliseconds(prng().Between(100, 1500)), [this] {
      if (simulation_->ending()) return;
      if (simulation_->chaos()) Disturb(places_[prng().Below(places_.size() - 1)]);
      Nemesis();
    });
  }

  void Disturb(Place& place) {
    Process& process = *place.process;
    if (!process.alive()) return;
    ++faults_;
    switch (prng().Below(7)) {
      case 0:
        place.workload->Died();
        process.Crash();
        place.workload = nullptr;
        simulation_->schedule().After(milliseconds(prng().Between(100, 8000)), [this, &place] {
          if (!place.process->alive()) Boot(place);
        });
        return;
      case 1:
      case 2:
        process.Pause();
        simulation_->schedule().After(milliseconds(prng().Between(50, 9000)),
                                      [&process] { process.Resume(); });
        return;
      case 3:
        for (size_t member = 0; member < simulation_->member_count(); ++member) {
          process.Slow(member, milliseconds(prng().Between(50, 800)));
          simulation_->schedule().After(milliseconds(prng().Between(500, 10'000)),
                                        [&process, member] { process.Slow(member, {}); });
        }
        return;
      default:
        for (size_t member = 0; member < simulation_->member_count(); ++member) {
          if (!prng().Chance(1, 2)) continue;
          process.Cut(member);
          simulation_->schedule().After(milliseconds(prng().Between(50, 16000)),
                                        [&process, member] { process.Heal(member); });
        }
        return;
    }
  }

  // When all else is well: whoever reaches a majority is not to suffer by it.
  void LoseMinority(Process& process, Instant until) {
    const size_t members = simulation_->member_count();
    const size_t first = prng().Below(members);
    for (size_t i = 0; i < (members - 1) / 2; ++i) {
      const size_t member = (first + i) % members;
      process.Cut(member);
      simulation_->schedule().At(until, [&process, member] { process.Heal(member); });
    }
  }

  // Looks so often that no outage between two looks is long enough to matter.
  void WatchMajority() {
    size_t up = 0;
    for (size_t i = 0; i < simulation_->member_count(); ++i) up += simulation_->up(i) ? 1 : 0;
    const bool majority = up * 2 > simulation_->member_count();
    const Instant now = simulation_->schedule().now();
    // A member that starts may apply what was committed before: as at the beginning. It may have
    // died again since the last look.
    const bool started = std::exchange(starts_, simulation_->starts()) != simulation_->starts();
    if (!majority && (majority_ || started)) history_.outages.push_back({now, now});
    if (!majority) history_.outages.back().second = now;
    majority_ = majority;
    simulation_->schedule().After(milliseconds(50), [this] {
      if (!simulation_->ending()) WatchMajority();
    });
  }

  Simulation* const simulation_;
  RecipeHistory history_;
  const WorkloadWorld world_;
  std::vector<Place> places_;
  bool majority_ = true;
  uint64_t starts_ = 0;
  uint64_t faults_ = 0;
};

}  // namespace

std::unique_ptr<Client> MakeRecipeWorld(Simulation* simulation) {
  return std::make_unique<RecipeWorld>(simulation);
}

}  // namespace conclave::sim
