// Cron: a job that runs once per tick of a schedule in the whole cluster.
//
//   absl::StatusOr<conclave::Cron> cron = conclave::Cron::Start(
//       client, "cron/report", {.schedule = "0 3 * * *", .id = "node-1"},
//       [](const conclave::CronRun& run, std::stop_token stop) { return WriteReport(run.tick); });
//
// Every process starts it; an election's leader runs the job. Before it runs a tick it writes the
// tick down, on the condition that it still leads and that nobody has written in between: so a tick
// runs at most once, whoever leads when. With at_least_once it writes the tick down afterwards: a
// leader that dies in between leaves it to the next one.
//
// Keys: "<name>/election/..." as every election's, and "<name>/last", the last settled tick.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/coordination/cron_plan.h"
#include "conclave/election/election.h"

namespace conclave {

struct CronRun {
  absl::Time tick{};       // for which it runs
  bool late = false;       // by more than the grace: catching up
  int64_t term = 0;        // the leader's fencing token
  Compare still_leader{};  // a condition for the job's own transactions
};

// The wall clock, for schedules are of the wall clock. Tests bring their own. Thread: any.
class CronClock {
 public:
  virtual ~CronClock() = default;
  virtual absl::Time Now() = 0;
  // Returns when `time` has come, earlier if a stop is requested, and may return earlier for no
  // reason.
  virtual void WaitUntil(absl::Time time, std::stop_token stop) = 0;
};
std::shared_ptr<CronClock> WallClock();

struct CronOptions {
  std::string schedule{};  // see schedule.h
  std::string id{};        // of this process; see CandidateOptions
  CatchUp catch_up = CatchUp::kSkip;
  // A tick that is run no later than this is on time.
  absl::Duration grace = absl::Seconds(30);
  // The job may run twice for a tick, but not less than once, unless the tick is skipped. A run
  // that fails is tried again after retry_pause, until the next tick, or until the policy skips it.
  bool at_least_once = false;
  absl::Duration retry_pause = absl::Seconds(10);
  absl::Duration ttl = absl::Seconds(8);  // of the leader's session: how long a dead one blocks
  std::shared_ptr<CronClock> clock{};     // null: WallClock()
};

// A handle; moving it is cheap. The job runs on a thread of the cron's own, one run at a time: a
// tick that comes while the job runs waits for it, and is late or skipped by the same rules.
class [[nodiscard]] Cron {
 public:
  // `stop` fires when the leadership is lost, and when the cron goes. A status that is not OK is
  // logged.
  using Job = std::function<absl::Status(const CronRun& run, std::stop_token stop)>;

  static absl::StatusOr<Cron> Start(const Client& client, std::string_view name,
                                    const CronOptions& options, Job job);
  Cron(Cron&&) noexcept;
  Cron& operator=(Cron&&) noexcept;
  ~Cron();  // asks the job to return, and waits for it

  // Whether this process is the one that runs the job now.
  bool IsLeader() const;
  // The last tick that was settled, by anybody; absent before the first one.
  absl::StatusOr<std::optional<absl::Time>> LastTick(const CallOptions& call = {}) const;

 private:
  Cron(const Client& client, std::string last_key, Candidate candidate);

  Client client_;
  std::string last_key_;
  Candidate candidate_;
};

}  // namespace conclave
