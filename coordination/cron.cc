#include "conclave/coordination/cron.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/coordination_metrics.h"
#include "conclave/coordination/names.h"

namespace conclave {
namespace {

// The wall clock may be set: look at it again after that long.
constexpr absl::Duration kWaitMax = absl::Seconds(10);

class RealClock : public CronClock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void WaitUntil(absl::Time time, std::stop_token stop) override {
    const absl::Duration left = std::min(time - absl::Now(), kWaitMax);
    if (left <= absl::ZeroDuration()) return;
    std::mutex mutex;
    std::condition_variable_any bell;
    std::unique_lock lock(mutex);
    bell.wait_for(lock, stop, absl::ToChronoNanoseconds(left), [] { return false; });
  }
};

}  // namespace

std::shared_ptr<CronClock> WallClock() { return std::make_shared<RealClock>(); }

struct Cron::Rep {
  // What the store knows, and as of which change.
  struct Last {
    std::optional<CronRecord> record;
    int64_t mod_revision = 0;
  };

  absl::Status Lead(Leadership& leadership, const std::stop_token& stop);
  absl::StatusOr<Last> Read(Patience& patience) const;
  absl::Status Settle(Leadership& leadership, Patience& patience, const CronRecord& record,
                      Last& last) const;
  absl::Status Run(Leadership& leadership, Patience& patience, absl::Time tick, Last& last,
                   const std::stop_token& stop) const;
  absl::Status RunJob(const CronRun& run, const std::stop_token& stop) const;
  void Count(std::string_view event) const {
    CountEvent(client.impl()->metrics(), "cron", name, event);
  }

  const Client client;
  const std::string name;
  const std::string last_key;
  const CronOptions options;
  const CronPlan plan;
  const Job job;
};

absl::StatusOr<Cron> Cron::Start(const Client& client, std::string_view name,
                                 const CronOptions& options, Job job) {
  if (absl::Status valid = CheckName("a cron", name); !valid.ok()) return valid;
  absl::StatusOr<Schedule> schedule = Schedule::Parse(options.schedule);
  if (!schedule.ok()) return schedule.status();
  if (schedule->Next(absl::UnixEpoch()) == absl::InfiniteFuture()) {
    return absl::InvalidArgumentError("the schedule's day never comes");
  }
  if (!job) return absl::InvalidArgumentError("a cron wants a job");
  if (options.grace < absl::ZeroDuration() || options.retry_pause <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("the grace is not negative, and the retry's pause is not 0");
  }
  CronOptions complete = options;
  if (complete.clock == nullptr) complete.clock = WallClock();
  std::shared_ptr<Rep> rep(new Rep{.client = client,
                                   .name = std::string(name),
                                   .last_key = std::string(name) + "/last",
                                   .options = complete,
                                   .plan = CronPlan(*schedule, options.catch_up, options.grace),
                                   .job = std::move(job)});
  absl::StatusOr<Candidate> candidate =
      Election(client, rep->name + "/election")
          .RunWhileLeader({.id = options.id, .ttl = options.ttl},
                          [rep](Leadership& leadership, std::stop_token stop) {
                            return rep->Lead(leadership, stop);
                          });
  if (!candidate.ok()) return candidate.status();
  return Cron(std::move(rep), *std::move(candidate));
}

Cron::Cron(std::shared_ptr<Rep> rep, Candidate candidate)
    : rep_(std::move(rep)), candidate_(std::move(candidate)) {}
Cron::Cron(Cron&&) noexcept = default;
Cron& Cron::operator=(Cron&&) noexcept = default;
Cron::~Cron() = default;

bool Cron::IsLeader() const { return candidate_.IsLeader(); }

absl::StatusOr<std::optional<absl::Time>> Cron::LastTick(const CallOptions& call) const {
  absl::StatusOr<std::optional<KeyValue>> key = rep_->client.Get(rep_->last_key, {}, call);
  if (!key.ok()) return key.status();
  if (!key->has_value()) return std::optional<absl::Time>();
  std::optional<CronRecord> record = ParseRecord((*key)->value);
  if (!record.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(rep_->last_key, " does not hold a tick"));
  }
  return std::optional<absl::Time>(record->tick);
}

// ---- The leader's thread
// ---------------------------------------------------------------------------

absl::Status Cron::Rep::Lead(Leadership& leadership, const std::stop_token& stop) {
  Patience patience(client.impl(), nullptr, {.stop = stop});
  absl::StatusOr<Last> last = Read(patience);
  while (!stop.stop_requested()) {
    if (!last.ok()) return last.status();
    const CronPlan::Step step = plan.Next(last->record, options.clock->Now());
    const CronRecord record{.tick = step.when, .term = leadership.term()};
    absl::Status done;
    switch (step.kind) {
      case CronPlan::Step::Kind::kWait:
        options.clock->WaitUntil(step.when, stop);
        break;
      case CronPlan::Step::Kind::kBegin:
      case CronPlan::Step::Kind::kSkip:
        done = Settle(leadership, patience, record, *last);
        if (done.ok() && step.kind == CronPlan::Step::Kind::kSkip) Count("skipped");
        break;
      case CronPlan::Step::Kind::kRun:
        done = Run(leadership, patience, step.when, *last, stop);
        break;
    }
    if (!done.ok()) return stop.stop_requested() ? absl::OkStatus() : done;
  }
  return absl::OkStatus();
}

absl::StatusOr<Cron::Rep::Last> Cron::Rep::Read(Patience& patience) const {
  absl::StatusOr<TxnResult> read = patience.Read({.success = {Get(last_key)}});
  if (!read.ok()) return read.status();
  const KeyValue* kv = read->get(0);
  if (kv == nullptr) return Last{};
  Last last{.record = ParseRecord(kv->value), .mod_revision = kv->mod_revision};
  if (!last.record.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(last_key, " does not hold a tick: delete it to begin anew"));
  }
  return last;
}

// Writes the tick down, if we still lead and nobody has written since we read. It may be repeated:
// a record with our term that is there already is ours.
absl::Status Cron::Rep::Settle(Leadership& leadership, Patience& patience, const CronRecord& record,
                               Last& last) const {
  absl::StatusOr<TxnResult> settled = patience.CommitIdempotent(
      {.conditions = {leadership.StillLeader(), ModRevision(last_key) == last.mod_revision},
       .success = {Put(last_key, EncodeRecord(record))},
       .failure = {Get(last_key)}});
  if (!settled.ok()) return settled.status();
  const KeyValue* there = settled->succeeded ? nullptr : settled->get(0);
  if (!settled->succeeded && (there == nullptr || ParseRecord(there->value) != record)) {
    return absl::AbortedError("somebody else settled a tick, or leads");
  }
  last = {.record = record,
          .mod_revision = settled->succeeded ? settled->revision : there->mod_revision};
  return absl::OkStatus();
}

absl::Status Cron::Rep::Run(Leadership& leadership, Patience& patience, absl::Time tick, Last& last,
                            const std::stop_token& stop) const {
  const CronRecord record{.tick = tick, .term = leadership.term()};
  if (!options.at_least_once) {
    if (absl::Status settled = Settle(leadership, patience, record, last); !settled.ok()) {
      return settled;
    }
  }
  if (!leadership.leading()) return absl::AbortedError("the leadership is lost");
  const CronRun run{.tick = tick,
                    .late = options.clock->Now() - tick > options.grace,
                    .term = leadership.term(),
                    .still_leader = leadership.StillLeader()};
  const absl::Status ran = RunJob(run, stop);
  if (!options.at_least_once) return absl::OkStatus();
  if (ran.ok()) return Settle(leadership, patience, record, last);
  options.clock->WaitUntil(options.clock->Now() + options.retry_pause, stop);
  return absl::OkStatus();  // the tick is still due
}

absl::Status Cron::Rep::RunJob(const CronRun& run, const std::stop_token& stop) const {
  absl::Status ran = job(run, stop);
  Count(ran.ok() ? "ran" : "failed");
  if (!ran.ok()) {
    client.impl()->Log(
        LogLevel::kWarning,
        absl::StrCat("cron ", name, ", tick ",
                     absl::FormatTime(absl::RFC3339_sec, run.tick, absl::UTCTimeZone()), ": ",
                     ran.ToString()));
  }
  return ran;
}

}  // namespace conclave
