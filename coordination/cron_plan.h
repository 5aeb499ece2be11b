// CronPlan: what a cron's leader does next. Pure: the time is passed in.
//
// Of several ticks that were missed at most the last one is run, for a job that was due ten times
// in an outage is hardly wanted ten times after it. Whether it is run at all, late, is the
// policy's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "conclave/coordination/schedule.h"

namespace conclave {

enum class CatchUp {
  kSkip,  // a tick that is later than `grace` is not run
  kOnce,  // the last one that was missed is run, however late
};

// What the store knows: the last tick that was settled. "<tick, RFC 3339> <term>" in the key.
struct CronRecord {
  absl::Time tick{};
  int64_t term = 0;  // of the leader who wrote it

  friend bool operator==(const CronRecord&, const CronRecord&) = default;
};
std::string EncodeRecord(const CronRecord& record);
std::optional<CronRecord> ParseRecord(std::string_view text);

class CronPlan {
 public:
  struct Step {
    enum class Kind {
      kWait,   // until `when`
      kRun,    // the tick `when`
      kSkip,   // settle the tick `when` without running it
      kBegin,  // nothing was ever settled: settle `when`, the last tick before now, as a beginning
    };
    Kind kind = Kind::kWait;
    absl::Time when{};
  };

  CronPlan(Schedule schedule, CatchUp catch_up, absl::Duration grace)
      : schedule_(schedule), catch_up_(catch_up), grace_(grace) {}

  Step Next(const std::optional<CronRecord>& last, absl::Time now) const;

 private:
  const Schedule schedule_;
  const CatchUp catch_up_;
  const absl::Duration grace_;
};

}  // namespace conclave
