// Schedule: at which moments something is due. Pure; all times are UTC.
//
// Either an interval: at the multiples of it since 1970, so that everybody agrees on them; or five
// fields as of cron(8): minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or
// jan-dec), day of the week (0-7 or sun-sat; 0 and 7 are Sunday). A field is "*", or a list of
// numbers and ranges "a-b", each with a step "/n". As in cron, if both days are restricted (do not
// begin with "*") one of them is enough. "@hourly", "@daily", "@weekly", "@monthly", "@yearly" and
// "@every 90s" stand for what they say.
#pragma once

#include <bitset>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace conclave {

class Schedule {
 public:
  static constexpr absl::Duration kIntervalMin = absl::Seconds(1);

  // InvalidArgument says which field, and why.
  static absl::StatusOr<Schedule> Parse(std::string_view text);
  static absl::StatusOr<Schedule> Every(absl::Duration interval);

  // The first moment behind `time`; InfiniteFuture if there is none (30 February).
  absl::Time Next(absl::Time time) const;
  // The last moment at or before `time`; InfinitePast if there is none.
  absl::Time Last(absl::Time time) const;

 private:
  Schedule() = default;
  static absl::StatusOr<Schedule> ParseFields(std::string_view text);
  bool DayMatches(absl::CivilDay day) const;

  absl::Duration interval_ = absl::ZeroDuration();  // zero: the fields count
  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;
  std::bitset<13> months_;
  std::bitset<7> weekdays_;
  bool either_day_ = false;  // both are restricted: one is enough
};

}  // namespace conclave
