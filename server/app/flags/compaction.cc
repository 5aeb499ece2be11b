// --help's group "Auto compaction".
#include "absl/strings/numbers.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetCompactionMode(std::string_view value, Config* config) {
  if (value != "periodic" && value != "revision") {
    return InvalidValue("must be periodic or revision");
  }
  config->auto_compaction_mode =
      value == "periodic" ? CompactionMode::kPeriodic : CompactionMode::kRevision;
  return absl::OkStatus();
}

// Its meaning depends on the mode, which may follow: checked when all is known. A bare number
// counts hours, as it always has.
absl::Status SetCompactionRetention(std::string_view value, Config* config) {
  int64_t number = 0;
  if (absl::SimpleAtoi(std::string(value), &number)) {
    if (number < 0) return InvalidValue("must not be negative");
    config->auto_compaction_revisions = number;
    config->auto_compaction_period = std::chrono::hours(number);
    return absl::OkStatus();
  }
  CONCLAVE_ASSIGN_OR_RETURN(config->auto_compaction_period, ParseDuration(value, Duration::zero()));
  config->auto_compaction_revisions = -1;  // not a number: only right for the periodic mode
  return absl::OkStatus();
}

const FlagEntry kFlags[] = {
    Works("auto-compaction-mode", kText, "periodic", "periodic or revision", SetCompactionMode),
    Works("auto-compaction-retention", kText, "0",
          "what to keep: a duration (a number is hours), or a number of revisions; 0 is off",
          SetCompactionRetention),
    Works("compaction-batch-limit", kNumber, "0",
          "old revisions that compaction frees at a time; 0: 2000",
          SetNumber<&Config::compaction_batch_limit, 0, 1'000'000'000>)
        .OnceExperimental(),
    Works("compaction-sleep-interval", kDuration, "0s", "how long it rests between two of these",
          SetDuration<&Config::compaction_sleep_interval>)
        .OnceExperimental(),
    Ignored("bootstrap-defrag-threshold-megabytes", kNumber, "there is nothing to defragment")
        .OnceExperimental(),
};

}  // namespace

FlagGroup CompactionFlags() { return {"Auto compaction", kFlags}; }

}  // namespace conclave::app
