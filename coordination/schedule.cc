#include "conclave/coordination/schedule.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/civil_time.h"

namespace conclave {
namespace {

constexpr size_t kTextMax = 256;
// 29 February may be eight years away, around a century that is no leap year.
constexpr int kDaysMax = 9 * 366;
constexpr int kMinutesOfDay = 24 * 60;

struct Field {
  const char* name;
  int min;
  int max;
  std::vector<std::string> names{};  // of min, min + 1, ...
};

const std::vector<Field>& Fields() {
  static const auto* const fields = new std::vector<Field>{
      {"minute", 0, 59},
      {"hour", 0, 23},
      {"day of the month", 1, 31},
      {"month",
       1,
       12,
       {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
      {"day of the week", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}};
  return *fields;
}

absl::Status Wrong(const Field& field, absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(field.name, " \"", absl::CEscape(text), "\": ", why));
}

absl::StatusOr<int> Number(const Field& field, absl::string_view text) {
  for (size_t i = 0; i < field.names.size(); ++i) {
    if (absl::AsciiStrToLower(text) == field.names[i]) return field.min + static_cast<int>(i);
  }
  int number = 0;
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(text, &number) || number < field.min || number > field.max) {
    return Wrong(field, text, absl::StrCat("not in ", field.min, " to ", field.max));
  }
  return number;
}

// The numbers of one entry of a list, put into `set`.
absl::Status ParseEntry(const Field& field, absl::string_view entry, std::vector<bool>& set) {
  const std::vector<absl::string_view> parts = absl::StrSplit(entry, '/');
  if (parts.size() > 2) return Wrong(field, entry, "more than one step");
  int step = 1;
  if (parts.size() == 2) {
    const bool digits =
        !parts[1].empty() && std::all_of(parts[1].begin(), parts[1].end(), absl::ascii_isdigit);
    if (!digits || !absl::SimpleAtoi(parts[1], &step) || step < 1 || step > field.max) {
      return Wrong(field, entry, absl::StrCat("a step is 1 to ", field.max));
    }
  }
  int first = field.min, last = field.max;
  if (parts[0] != "*") {
    const std::vector<absl::string_view> ends = absl::StrSplit(parts[0], '-');
    if (ends.size() > 2) return Wrong(field, entry, "more than one range");
    absl::StatusOr<int> begin = Number(field, ends[0]);
    if (!begin.ok()) return begin.status();
    first = *begin;
    // As in cron: "5/10" goes on to the end.
    if (ends.size() == 1 && parts.size() == 1) last = first;
    if (ends.size() == 2) {
      absl::StatusOr<int> end = Number(field, ends[1]);
      if (!end.ok()) return end.status();
      last = *end;
      if (last < first) return Wrong(field, entry, "the range goes backwards");
    }
  }
  for (int number = first; number <= last; number += step) set[number] = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<bool>> ParseField(const Field& field, absl::string_view text) {
  std::vector<bool> set(field.max + 1);
  for (absl::string_view entry : absl::StrSplit(text, ',')) {
    if (absl::Status status = ParseEntry(field, entry, set); !status.ok()) return status;
  }
  return set;
}

template <size_t N>
void Fill(const std::vector<bool>& from, std::bitset<N>& to) {
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i]) to.set(i % N);  // 7 is Sunday as well; the other fields are shorter than their set
  }
}

absl::CivilMinute MinuteOf(absl::Time time) {
  return absl::ToCivilMinute(time, absl::UTCTimeZone());
}
absl::Time TimeOf(absl::CivilMinute minute) { return absl::FromCivil(minute, absl::UTCTimeZone()); }

}  // namespace

// ---- Parsing
// ---------------------------------------------------------------------------------------

absl::StatusOr<Schedule> Schedule::Every(absl::Duration interval) {
  if (interval < kIntervalMin || interval == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError("an interval is finite, and at least a second");
  }
  if (absl::Trunc(interval, absl::Milliseconds(1)) != interval) {
    return absl::InvalidArgumentError("an interval is a number of milliseconds");
  }
  Schedule schedule;
  schedule.interval_ = interval;
  return schedule;
}

absl::StatusOr<Schedule> Schedule::Parse(std::string_view given) {
  if (given.size() > kTextMax) return absl::InvalidArgumentError("a schedule is not that long");
  const std::string text(absl::StripAsciiWhitespace({given.data(), given.size()}));
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "@every ")) {
    absl::Duration interval;
    if (!absl::ParseDuration(std::string(absl::StripAsciiWhitespace(rest)), &interval)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", absl::CEscape(text), "\": wants a duration, as in @every 90s"));
    }
    return Every(interval);
  }
  if (text == "@hourly") return ParseFields("0 * * * *");
  if (text == "@daily" || text == "@midnight") return ParseFields("0 0 * * *");
  if (text == "@weekly") return ParseFields("0 0 * * 0");
  if (text == "@monthly") return ParseFields("0 0 1 * *");
  if (text == "@yearly" || text == "@annually") return ParseFields("0 0 1 1 *");
  return ParseFields(text);
}

absl::StatusOr<Schedule> Schedule::ParseFields(std::string_view given) {
  const absl::string_view text(given.data(), given.size());
  const std::vector<absl::string_view> parts =
      absl::StrSplit(text, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (parts.size() != Fields().size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", absl::CEscape(text), "\" has ", parts.size(),
                     " fields, not 5: minute, hour, day of the month, month, day of the week"));
  }
  std::vector<std::vector<bool>> sets;
  for (size_t i = 0; i < parts.size(); ++i) {
    absl::StatusOr<std::vector<bool>> set = ParseField(Fields()[i], parts[i]);
    if (!set.ok()) return set.status();
    sets.push_back(*std::move(set));
  }
  Schedule schedule;
  Fill(sets[0], schedule.minutes_);
  Fill(sets[1], schedule.hours_);
  Fill(sets[2], schedule.days_);
  Fill(sets[3], schedule.months_);
  Fill(sets[4], schedule.weekdays_);
  schedule.either_day_ = parts[2].front() != '*' && parts[4].front() != '*';
  return schedule;
}

// ---- Moments
// ---------------------------------------------------------------------------------------

bool Schedule::DayMatches(absl::CivilDay day) const {
  if (!months_.test(day.month())) return false;
  // absl counts from Monday; cron from Sunday.
  const int weekday = (static_cast<int>(absl::GetWeekday(day)) + 1) % 7;
  const bool of_month = days_.test(day.day());
  const bool of_week = weekdays_.test(weekday);
  return either_day_ ? of_month || of_week : of_month && of_week;
}

absl::Time Schedule::Next(absl::Time time) const {
  if (time == absl::InfiniteFuture()) return time;
  time = std::max(time, absl::UnixEpoch() - absl::Hours(24));
  if (interval_ != absl::ZeroDuration()) {
    return absl::UnixEpoch() + absl::Floor(time - absl::UnixEpoch(), interval_) + interval_;
  }
  const absl::CivilMinute from = MinuteOf(time) + 1;
  absl::CivilDay day(from);
  int minute = from.hour() * 60 + from.minute();
  for (int i = 0; i < kDaysMax; ++i, ++day, minute = 0) {
    if (!DayMatches(day)) continue;
    for (; minute < kMinutesOfDay; ++minute) {
      if (hours_.test(minute / 60) && minutes_.test(minute % 60)) {
        return TimeOf(absl::CivilMinute(day) + minute);
      }
    }
  }
  return absl::InfiniteFuture();
}

absl::Time Schedule::Last(absl::Time time) const {
  if (time == absl::InfinitePast()) return time;
  time = std::min(time, absl::UnixEpoch() + absl::Hours(24 * 366) * 8000);
  if (interval_ != absl::ZeroDuration()) {
    return absl::UnixEpoch() + absl::Floor(time - absl::UnixEpoch(), interval_);
  }
  const absl::CivilMinute from = MinuteOf(time);
  absl::CivilDay day(from);
  int minute = from.hour() * 60 + from.minute();
  for (int i = 0; i < kDaysMax; ++i, --day, minute = kMinutesOfDay - 1) {
    if (!DayMatches(day)) continue;
    for (; minute >= 0; --minute) {
      if (hours_.test(minute / 60) && minutes_.test(minute % 60)) {
        return TimeOf(absl::CivilMinute(day) + minute);
      }
    }
  }
  return absl::InfinitePast();
}

}  // namespace conclave
