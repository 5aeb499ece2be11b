// CronLeader: what the process that leads a cron does: it waits for ticks, settles them and runs
// the job.
//
// Thread: the caller's, which blocks. What it knows of the store it reads anew in each term.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/coordination/cron.h"
#include "conclave/coordination/cron_plan.h"
#include "conclave/election/leadership.h"

namespace conclave {

class Patience;

class CronLeader {
 public:
  // `options` are complete and good.
  CronLeader(const Client& client, std::string_view name, const Schedule& schedule,
             const CronOptions& options, Cron::Job job);

  static std::string ElectionOf(std::string_view name) { return std::string(name) + "/election"; }
  static std::string LastKeyOf(std::string_view name) { return std::string(name) + "/last"; }

  // One term, until `stop`, which fires with the end of the leadership.
  absl::Status Lead(Leadership& leadership, const std::stop_token& stop);

 private:
  // What the store knows, and as of which change.
  struct Last {
    std::optional<CronRecord> record;
    int64_t mod_revision = 0;
  };

  absl::StatusOr<Last> Read(Patience& patience) const;
  absl::Status Settle(Leadership& leadership, Patience& patience, const CronRecord& record,
                      Last& last) const;
  absl::Status Run(Leadership& leadership, Patience& patience, absl::Time tick, Last& last,
                   const std::stop_token& stop) const;
  absl::Status RunJob(const CronRun& run, const std::stop_token& stop) const;
  void Count(std::string_view event) const;  // in the caller's registry of metrics

  const Client client_;
  const std::string name_;
  const std::string last_key_;
  const CronOptions options_;
  const CronPlan plan_;
  const Cron::Job job_;
};

}  // namespace conclave
