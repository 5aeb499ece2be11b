// The workloads of coordination/: the production recipes, on blocking threads.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/error.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/barrier.h"
#include "conclave/coordination/counter.h"
#include "conclave/coordination/cron_leader.h"
#include "conclave/coordination/double_barrier.h"
#include "conclave/coordination/group.h"
#include "conclave/coordination/queue.h"
#include "conclave/election/election.h"
#include "conclave/tests/sim/recipes/blocking_thread.h"
#include "conclave/tests/sim/recipes/workloads.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);

// What all have in common: a thread, sessions, notes.
class Coordinating : public Workload {
 public:
  Coordinating(const WorkloadWorld& world, Process* process) : world_(world), process_(process) {}

  void Finish() override { finishing_ = true; }
  void Died() override {
    finishing_ = dying_ = true;
    OnDying();
    thread_.reset();
  }

 protected:
  // Until `over()`.
  virtual void Work(const conclave::Client& client) = 0;
  virtual void OnDying() {}

  // Once the object is whole.
  void Begin() {
    thread_ = std::make_unique<BlockingThread>(
        world_.simulation, process_, [this](const conclave::Client& client) { Work(client); });
  }

  Prng& prng() { return world_.simulation->prng(); }
  Instant now() const { return world_.simulation->schedule().now(); }
  CoordinationHistory& history() { return world_.history->coordination; }
  bool over() const { return finishing_; }
  bool dying() const { return dying_; }
  const WorkloadWorld& world() const { return world_; }
  Process* process() const { return process_; }

  absl::Duration Between(int64_t low_ms, int64_t high_ms) {
    return absl::Milliseconds(dying_ ? low_ms : prng().Between(low_ms, high_ms));
  }
  bool Chance(uint64_t numerator, uint64_t denominator) {
    return !dying_ && prng().Chance(numerator, denominator);
  }
  static void Rest(const conclave::Client& client, absl::Duration length) {
    (void)Patience(client.impl(), nullptr, {}).Rest(absl::ToChronoNanoseconds(length));
  }

  CallTrace Asked() const { return {.asked = now()}; }
  // What died under way stays of unknown outcome.
  void Answer(const absl::Status& status, CallTrace* call) const {
    if (dying_) return;
    call->answered = now();
    call->outcome = status.ok()                ? Outcome::kDone
                    : IsOutcomeUnknown(status) ? Outcome::kUnknown
                                               : Outcome::kRefused;
  }

  // One session after the other, `use` of each until it returns.
  template <typename Use>
  void WithSessions(const conclave::Client& client, const Use& use) {
    while (!over()) {
      absl::StatusOr<Session> session =
          client.OpenSession({.ttl = absl::Seconds(dying_ ? 1 : prng().Between(2, 6))});
      if (session.ok()) use(*session);
      if (!over()) Rest(client, Between(0, 500));
    }
  }

 private:
  const WorkloadWorld world_;
  Process* const process_;
  bool finishing_ = false;
  bool dying_ = false;
  std::unique_ptr<BlockingThread> thread_;
};

// ---- Counter and IdRanges

class Numbers : public Coordinating {
 public:
  Numbers(const WorkloadWorld& world, Process* process) : Coordinating(world, process) { Begin(); }

 private:
  void Work(const conclave::Client& client) override {
    Counter counter(client, kCounterName);
    IdRanges ids(client, kIdsName, {.block = 3});
    while (!over()) {
      Rest(client, Between(0, 300));
      if (Chance(1, 3)) {
        Allocate(ids);
      } else {
        Add(counter);
      }
    }
  }

  void Add(Counter& counter) {
    const size_t at = history().adds.size();
    const int64_t number = static_cast<int64_t>(at) + 1;
    history().adds.push_back({.call = Asked(), .delta = Chance(1, 4) ? -number : number});
    const absl::StatusOr<int64_t> sum =
        counter.Add(history().adds[at].delta, {.timeout = Between(200, 4000)});
    AddTrace& add = history().adds[at];
    Answer(sum.status(), &add.call);
    if (sum.ok()) add.value = *sum;
  }

  void Allocate(IdRanges& ids) {
    if (Chance(1, 2)) {
      const absl::StatusOr<IdRange> range = ids.Allocate(static_cast<int64_t>(prng().Below(4)) + 1);
      if (range.ok()) Note(range->begin, range->end, process()->identity() + kAllocates);
    } else if (const absl::StatusOr<int64_t> id = ids.Next(); id.ok()) {
      Note(*id, *id + 1, process()->identity());
    }
  }

  void Note(int64_t begin, int64_t end, int allocator) {
    history().ids.push_back({.allocator = allocator, .begin = begin, .end = end});
  }

  static constexpr int kAllocates = 1'000'000;  // apart from Next, whose block they are past
};

// ---- Queue

class Queuer : public Coordinating {
 public:
  Queuer(const WorkloadWorld& world, Process* process)
      : Coordinating(world, process), takes_only_(world.simulation->seed() % 2 == 0) {
    Begin();
  }

 private:
  void Work(const conclave::Client& client) override {
    WithSessions(client, [&](Session& session) {
      Queue queue(session, kQueueName);
      while (!over() && session.alive() && !Chance(1, 25)) {
        Rest(client, Between(0, 300));
        switch (dying() ? 0 : prng().Below(6)) {
          case 0:
          case 1:
          case 2:
            Push(queue);
            break;
          case 3:
          case 4:
            if (!takes_only_) {
              Pop(session, queue);
              break;
            }
            [[fallthrough]];
          default:
            Take(client, session, queue);
        }
      }
    });
  }

  void Push(Queue& queue) {
    const size_t at = history().pushes.size();
    const int priority = Chance(1, 4) ? 1 : 0;
    history().pushes.push_back(
        {.call = Asked(), .value = absl::StrCat("item ", at), .priority = priority});
    const absl::StatusOr<std::string> id =
        queue.Push(absl::StrCat("item ", at), {.priority = priority});
    PushTrace& push = history().pushes[at];
    Answer(id.status(), &push.call);
    if (id.ok()) push.id = *id;
  }

  size_t BeginSeize(const Session& session, bool takes) {
    history().seizes.push_back({.call = Asked(), .takes = takes, .lease = session.lease_id()});
    return history().seizes.size() - 1;
  }

  void Pop(const Session& session, Queue& queue) {
    const size_t at = BeginSeize(session, false);
    const absl::StatusOr<QueueItem> item = queue.Pop({.timeout = Between(100, 3000)});
    SeizeTrace& seize = history().seizes[at];
    Answer(item.status(), &seize.call);
    if (!item.ok()) return;
    seize.id = item->id;
    seize.value = item->value;
  }

  void Take(const conclave::Client& client, const Session& session, Queue& queue) {
    const size_t at = BeginSeize(session, true);
    absl::StatusOr<TakenItem> item = queue.Take({.timeout = Between(100, 3000)});
    Answer(item.status(), &history().seizes[at].call);
    if (!item.ok()) return;
    history().seizes[at].id = item->id();
    history().seizes[at].value = item->value();
    for (absl::Duration left = Between(0, 1500); left > absl::ZeroDuration(); left -= kLookEvery) {
      Look(*item, at);
      Rest(client, kLookEvery);
    }
    Look(*item, at);
    if (Chance(1, 5)) return;  // its destructor gives it back
    const bool ack = Chance(2, 3);
    history().seizes[at].settling =
        ack ? SeizeTrace::Settling::kAck : SeizeTrace::Settling::kGiveBack;
    history().seizes[at].settle = Asked();
    const absl::Status settled = ack ? item->Ack() : item->Nack();
    Answer(settled, &history().seizes[at].settle);
  }

  void Look(const TakenItem& item, size_t at) {
    if (!dying() && item.ours()) history().seizes[at].last_ours = now();
  }

  const bool takes_only_;  // of the world: nobody pops
};

// ---- Barrier and DoubleBarrier

class BarrierUser : public Coordinating {
 public:
  BarrierUser(const WorkloadWorld& world, Process* process) : Coordinating(world, process) {
    Begin();
  }

 private:
  void Work(const conclave::Client& client) override {
    WithSessions(client, [&](Session& session) {
      Barrier barrier(client, kBarrierName);
      DoubleBarrier both(session, kDoubleBarrierName, kDoubleBarrierMembers);
      while (!over() && session.alive() && !Chance(1, 25)) {
        Rest(client, Between(0, 200));
        if (Chance(2, 3)) {
          Round(client, session, both);
        } else {
          OneWay(client, session, barrier);
        }
      }
    });
  }

  size_t BeginBarrier(BarrierTrace::Kind kind) {
    history().barriers.push_back({.kind = kind, .call = Asked()});
    return history().barriers.size() - 1;
  }

  void OneWay(const conclave::Client& client, const Session& session, Barrier& barrier) {
    using Kind = BarrierTrace::Kind;
    if (!Chance(1, 3)) {
      const size_t wait = BeginBarrier(Kind::kWait);
      Answer(barrier.Wait({.timeout = Between(100, 2000)}), &history().barriers[wait].call);
      return;
    }
    const size_t hold = BeginBarrier(Kind::kHold);
    const absl::Status held = Chance(1, 2) ? barrier.Hold(session) : barrier.Hold();
    Answer(held, &history().barriers[hold].call);
    if (!held.ok() && !absl::IsAlreadyExists(held)) return;
    Rest(client, Between(0, 1000));
    const size_t release = BeginBarrier(Kind::kRelease);
    Answer(barrier.Release(), &history().barriers[release].call);
  }

  void Round(const conclave::Client& client, const Session& session, DoubleBarrier& barrier) {
    const size_t at = history().rounds.size();
    history().rounds.push_back({.lease = session.lease_id(), .enter = Asked()});
    const absl::Status entered = barrier.Enter({.timeout = Between(500, 6000)});
    Answer(entered, &history().rounds[at].enter);
    if (!entered.ok()) return;
    Rest(client, Between(0, 600));
    history().rounds[at].leave = Asked();
    absl::StatusOr<Departure> left = barrier.Leave({.timeout = Between(500, 4000)});
    while (absl::IsDeadlineExceeded(left.status()) && session.alive()) {
      left = barrier.Leave({.timeout = absl::Seconds(2)});
    }
    RoundTrace& round = history().rounds[at];
    Answer(left.status(), &round.leave);
    if (!left.ok()) return;
    round.round = left->round;
    round.lost = left->lost;
  }
};

// ---- Group

class GroupUser : public Coordinating {
 public:
  GroupUser(const WorkloadWorld& world, Process* process)
      : Coordinating(world, process), table_(absl::StrCat(kGroupName, "/")) {
    view_ = world.history->views.size();
    const std::string prefix = absl::StrCat(kGroupName, "/");
    world.history->views.push_back({.prefix = prefix});
    process->Run([this, prefix](Engine& engine) {
      // As Group::Watch does, which calls back on a thread of the client's own.
      engine.watches().Add(Prefix(prefix), {.list_first = true},
                           [this](const WatchBatch& batch) { OnBatch(batch); });
    });
    Begin();
  }

  void Finish() override {
    Coordinating::Finish();
    ViewTrace& view = world().history->views[view_];
    view.must_be_complete = true;
    view.attentive_from = world().history->calm + seconds(3);
  }

 private:
  void OnBatch(const WatchBatch& batch) {
    if (dying()) return;
    const GroupChange change = table_.Apply(batch);
    ViewTrace::View view{.at = now(), .revision = change.revision};
    for (const GroupMember& member : change.members) {
      view.keys.push_back(absl::StrCat(kGroupName, "/", member.id));
    }
    world().history->views[view_].views.push_back(std::move(view));
  }

  void Work(const conclave::Client& client) override {
    WithSessions(client, [&](Session& session) {
      Group group(client, kGroupName);
      while (!over() && session.alive() && !Chance(1, 10)) {
        Rest(client, Between(0, 300));
        (void)group.WaitForMembers(2, {.timeout = Between(0, 200)});
        JoinAndLeave(client, session, group);
      }
    });
  }

  // Where the leave is not waited for, it may still be on its way when the same session joins
  // again.
  void JoinAndLeave(const conclave::Client& client, const Session& session, Group& group) {
    const size_t at = history().members.size();
    const std::string id = absl::StrCat("m", dying() ? 0 : prng().Below(3));
    history().members.push_back({.join = Asked(), .id = id, .lease = session.lease_id()});
    absl::StatusOr<Membership> member = group.Join(session, id, "data");
    Answer(member.status(), &history().members[at].join);
    if (!member.ok()) return;
    history().members[at].revision = member->revision();
    for (absl::Duration left = Between(0, 1500); left > absl::ZeroDuration(); left -= kLookEvery) {
      if (!dying() && member->alive()) history().members[at].last_alive = now();
      Rest(client, kLookEvery);
    }
    if (Chance(1, 3)) (void)member->Update("more");
    if (Chance(1, 2)) (void)member->Leave();  // else its destructor does
  }

  GroupTable table_;
  size_t view_ = 0;
};

// ---- Cron

constexpr absl::Duration kTickEvery = absl::Seconds(1);

class CronUser : public Coordinating {
 public:
  CronUser(const WorkloadWorld& world, Process* process) : Coordinating(world, process) {
    Watch();
    Begin();
  }

 private:
  // The process's own clock, on which a leader waits as long as it leads.
  class Clock : public CronClock {
   public:
    Clock(const conclave::Client& client, Process* process) : client_(client), process_(*process) {}
    absl::Time Now() override {
      // Processes do not agree on the time, by up to half a tick.
      const Instant world = process_.ToWorld(process_.LocalNow());
      const absl::Duration ahead =
          absl::Milliseconds(process_.identity() / 1000 * 137 % 1000 - 500);
      return absl::UnixEpoch() + absl::Hours(1) + absl::FromChrono(world.time_since_epoch()) +
             ahead;
    }
    void WaitUntil(absl::Time time, std::stop_token stop) override {
      if (stop.stop_requested()) return;
      Rest(client_, std::clamp(time - Now(), absl::Milliseconds(1), kLookEvery));
    }

   private:
    const conclave::Client client_;
    Process& process_;
  };

  void Work(const conclave::Client& client) override {
    CronOptions options{.catch_up = Chance(1, 2) ? CatchUp::kOnce : CatchUp::kSkip,
                        .grace = absl::Seconds(2),
                        .retry_pause = absl::Milliseconds(200),
                        .clock = std::make_shared<Clock>(client, process())};
    CronLeader cron(
        client, kCronName, *conclave::Schedule::Every(kTickEvery), options,
        [this, &client](const CronRun& run, std::stop_token) {
          if (!dying()) {
            const CronRecord record{.tick = run.tick, .term = run.term};
            history().jobs.push_back({.tick = EncodeRecord(record), .term = run.term, .at = now()});
          }
          Rest(client, Between(0, 400));
          return absl::OkStatus();
        });
    WithSessions(client, [&](Session& session) {
      absl::StatusOr<Leadership> leadership =
          Election(client, CronLeader::ElectionOf(kCronName))
              .Campaign(session, "", {.timeout = Between(1000, 5000)});
      if (!leadership.ok()) return;
      leadership_ = &*leadership;
      stop_ = std::stop_source();
      term_ends_ = now() + milliseconds(dying() ? 0 : prng().Between(500, 8000));
      (void)cron.Lead(*leadership, stop_.get_token());
      leadership_ = nullptr;
    });
  }

  // What a client's threads for signals do: tells the leader that he leads no more.
  void Watch() {
    process()->RunAfter(milliseconds(20), [this](Engine&) {
      if (leadership_ != nullptr && (!leadership_->leading() || over() || now() >= term_ends_)) {
        stop_.request_stop();
      }
      Watch();
    });
  }
  void OnDying() override { stop_.request_stop(); }

  Leadership* leadership_ = nullptr;  // while it leads
  std::stop_source stop_;
  Instant term_ends_{};
};

}  // namespace

std::unique_ptr<Workload> MakeCoordinating(const WorkloadWorld& world, Process* process,
                                           Coordination what) {
  switch (what) {
    case Coordination::kNumbers:
      return std::make_unique<Numbers>(world, process);
    case Coordination::kQueue:
      return std::make_unique<Queuer>(world, process);
    case Coordination::kBarriers:
      return std::make_unique<BarrierUser>(world, process);
    case Coordination::kGroup:
      return std::make_unique<GroupUser>(world, process);
    case Coordination::kCron:
      break;
  }
  return std::make_unique<CronUser>(world, process);
}

}  // namespace conclave::sim
