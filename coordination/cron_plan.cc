#include "conclave/coordination/cron_plan.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace conclave {

std::string EncodeRecord(const CronRecord& record) {
  return absl::StrCat(absl::FormatTime(absl::RFC3339_full, record.tick, absl::UTCTimeZone()), " ",
                      record.term);
}

std::optional<CronRecord> ParseRecord(std::string_view text) {
  const size_t space = text.rfind(' ');
  if (space == std::string_view::npos) return std::nullopt;
  CronRecord record;
  std::string error;
  const std::string_view time = text.substr(0, space), term = text.substr(space + 1);
  if (!absl::ParseTime(absl::RFC3339_full, {time.data(), time.size()}, &record.tick, &error)) {
    return std::nullopt;
  }
  if (!absl::SimpleAtoi(absl::string_view(term.data(), term.size()), &record.term)) {
    return std::nullopt;
  }
  return record;
}

CronPlan::Step CronPlan::Next(const std::optional<CronRecord>& last, absl::Time now) const {
  const absl::Time due = schedule_.Last(now);
  if (!last.has_value()) {
    // What was due before anybody ran this cron is nobody's to catch up.
    return {.kind = Step::Kind::kBegin, .when = std::max(due, absl::UnixEpoch())};
  }
  // A clock that went back does not make ticks come again.
  if (due <= last->tick) {
    return {.kind = Step::Kind::kWait, .when = schedule_.Next(std::max(now, last->tick))};
  }
  if (now - due <= grace_ || catch_up_ == CatchUp::kOnce) {
    return {.kind = Step::Kind::kRun, .when = due};
  }
  return {.kind = Step::Kind::kSkip, .when = due};
}

}  // namespace conclave
