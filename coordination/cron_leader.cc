#include "conclave/coordination/cron_leader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/coordination_metrics.h"

namespace conclave {

CronLeader::CronLeader(const Client& client, std::string_view name, const Schedule& schedule,
                       const CronOptions& options, Cron::Job job)
    : client_(client),
      name_(name),
      last_key_(LastKeyOf(name)),
      options_(options),
      plan_(schedule, options.catch_up, options.grace),
      job_(std::move(job)) {}

absl::Status CronLeader::Lead(Leadership& leadership, const std::stop_token& stop) {
  Patience patience(client_.impl(), nullptr, {.stop = stop});
  absl::StatusOr<Last> last = Read(patience);
  while (!stop.stop_requested()) {
    if (!last.ok()) return last.status();
    const CronPlan::Step step = plan_.Next(last->record, options_.clock->Now());
    const CronRecord record{.tick = step.when, .term = leadership.term()};
    absl::Status done;
    switch (step.kind) {
      case CronPlan::Step::Kind::kWait:
        options_.clock->WaitUntil(step.when, stop);
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

void CronLeader::Count(std::string_view event) const {
  CountEvent(client_.impl()->metrics(), "cron", name_, event);
}

absl::StatusOr<CronLeader::Last> CronLeader::Read(Patience& patience) const {
  absl::StatusOr<TxnResult> read = patience.Read({.success = {Get(last_key_)}});
  if (!read.ok()) return read.status();
  const KeyValue* kv = read->get(0);
  if (kv == nullptr) return Last{};
  Last last{.record = ParseRecord(kv->value), .mod_revision = kv->mod_revision};
  if (!last.record.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(last_key_, " does not hold a tick: delete it to begin anew"));
  }
  return last;
}

// Writes the tick down, if we still lead and nobody has written since we read. It may be repeated:
// a record with our term that is there already is ours.
absl::Status CronLeader::Settle(Leadership& leadership, Patience& patience,
                                const CronRecord& record, Last& last) const {
  absl::StatusOr<TxnResult> settled = patience.CommitIdempotent(
      {.conditions = {leadership.StillLeader(), ModRevision(last_key_) == last.mod_revision},
       .success = {Put(last_key_, EncodeRecord(record))},
       .failure = {Get(last_key_)}});
  if (!settled.ok()) return settled.status();
  const KeyValue* there = settled->succeeded ? nullptr : settled->get(0);
  if (!settled->succeeded && (there == nullptr || ParseRecord(there->value) != record)) {
    return absl::AbortedError("somebody else settled a tick, or leads");
  }
  last = {.record = record,
          .mod_revision = settled->succeeded ? settled->revision : there->mod_revision};
  return absl::OkStatus();
}

absl::Status CronLeader::Run(Leadership& leadership, Patience& patience, absl::Time tick,
                             Last& last, const std::stop_token& stop) const {
  const CronRecord record{.tick = tick, .term = leadership.term()};
  if (!options_.at_least_once && !MUTANT("job-before-its-tick-is-settled")) {
    if (absl::Status settled = Settle(leadership, patience, record, last); !settled.ok()) {
      return settled;
    }
  }
  if (!leadership.leading()) return absl::AbortedError("the leadership is lost");
  const CronRun run{.tick = tick,
                    .late = options_.clock->Now() - tick > options_.grace,
                    .term = leadership.term(),
                    .still_leader = leadership.StillLeader()};
  const absl::Status ran = RunJob(run, stop);
  if (!options_.at_least_once) return absl::OkStatus();
  if (ran.ok()) return Settle(leadership, patience, record, last);
  options_.clock->WaitUntil(options_.clock->Now() + options_.retry_pause, stop);
  return absl::OkStatus();  // the tick is still due
}

absl::Status CronLeader::RunJob(const CronRun& run, const std::stop_token& stop) const {
  absl::Status ran = job_(run, stop);
  Count(ran.ok() ? "ran" : "failed");
  if (!ran.ok()) {
    client_.impl()->Log(
        LogLevel::kWarning,
        absl::StrCat("cron ", name_, ", tick ",
                     absl::FormatTime(absl::RFC3339_sec, run.tick, absl::UTCTimeZone()), ": ",
                     ran.ToString()));
  }
  return ran;
}

}  // namespace conclave
