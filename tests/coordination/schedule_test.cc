// Schedules: which moments they mean, and which texts they refuse.
#include "conclave/coordination/schedule.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "conclave/base/prng.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

absl::Time At(const std::string& text) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime("%Y-%m-%d %H:%M:%S", text, &time, &error)) << error;
  return time;
}
std::string Text(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::UTCTimeZone());
}
// The first three moments behind `from`.
std::vector<std::string> Three(const std::string& schedule, const std::string& from) {
  absl::StatusOr<Schedule> parsed = Schedule::Parse(schedule);
  EXPECT_TRUE(parsed.ok()) << schedule << ": " << parsed.status();
  std::vector<std::string> moments;
  if (!parsed.ok()) return moments;
  absl::Time time = At(from);
  for (int i = 0; i < 3; ++i) moments.push_back(Text(time = parsed->Next(time)));
  return moments;
}
using Moments = std::vector<std::string>;

TEST(ScheduleTest, EveryFieldCounts) {
  EXPECT_EQ(Three("* * * * *", "2026-01-01 00:00:59"),
            (Moments{"2026-01-01 00:01:00", "2026-01-01 00:02:00", "2026-01-01 00:03:00"}));
  EXPECT_EQ(Three("*/20 * * * *", "2026-01-01 23:30:00"),
            (Moments{"2026-01-01 23:40:00", "2026-01-02 00:00:00", "2026-01-02 00:20:00"}));
  EXPECT_EQ(Three("5 4,16 * * *", "2026-12-31 05:00:00"),
            (Moments{"2026-12-31 16:05:00", "2027-01-01 04:05:00", "2027-01-01 16:05:00"}));
  EXPECT_EQ(Three("0 0 1 jan,JUL *", "2026-01-01 00:00:00"),
            (Moments{"2026-07-01 00:00:00", "2027-01-01 00:00:00", "2027-07-01 00:00:00"}));
  EXPECT_EQ(Three("50-59/4 0 * * *", "2026-01-01 00:00:00"),
            (Moments{"2026-01-01 00:50:00", "2026-01-01 00:54:00", "2026-01-01 00:58:00"}));
  EXPECT_EQ(Three("40/15 12 * * *", "2026-01-01 00:00:00"),
            (Moments{"2026-01-01 12:40:00", "2026-01-01 12:55:00", "2026-01-02 12:40:00"}));
}

TEST(ScheduleTest, WeekdaysGoFromSundayAndBothSundaysAreOne) {
  const Moments sundays = {"2026-11-29 06:00:00", "2026-12-06 06:00:00", "2026-12-13 06:00:00"};
  EXPECT_EQ(Three("0 6 * * 0", "2026-11-26 18:00:00"), sundays);
  EXPECT_EQ(Three("0 6 * * 7", "2026-11-26 18:00:00"), sundays);
  EXPECT_EQ(Three("0 6 * * sun", "2026-11-26 18:00:00"), sundays);
  EXPECT_EQ(Three("0 6 * * mon-fri", "2026-11-27 18:00:00"),
            (Moments{"2026-11-30 06:00:00", "2026-12-01 06:00:00", "2026-12-02 06:00:00"}));
}

TEST(ScheduleTest, OfTwoRestrictedDaysOneIsEnough) {
  // The 13th, or a Friday.
  EXPECT_EQ(Three("0 0 13 * 5", "2026-12-05 00:00:00"),
            (Moments{"2026-12-11 00:00:00", "2026-12-13 00:00:00", "2026-12-18 00:00:00"}));
  // As in cron a field that begins with a star does not restrict by itself:
  // both must hold.
  EXPECT_EQ(Three("0 0 */2 * 5", "2026-12-05 00:00:00"),
            (Moments{"2026-12-11 00:00:00", "2026-12-25 00:00:00", "2027-01-01 00:00:00"}));
}

TEST(ScheduleTest, LeapDaysComeAlsoAroundACenturyAndSomeDaysNever) {
  EXPECT_EQ(Three("0 0 29 2 *", "2096-01-01 00:00:00"),
            (Moments{"2096-02-29 00:00:00", "2104-02-29 00:00:00", "2108-02-29 00:00:00"}));
  absl::StatusOr<Schedule> never = Schedule::Parse("0 0 30 2 *");
  ASSERT_TRUE(never.ok());
  EXPECT_EQ(never->Next(At("2026-01-01 00:00:00")), absl::InfiniteFuture());
  EXPECT_EQ(never->Last(At("2026-01-01 00:00:00")), absl::InfinitePast());
}

TEST(ScheduleTest, IntervalsAreTheSameForEverybody) {
  EXPECT_EQ(Three("@every 90s", "1970-01-01 00:01:00"),
            (Moments{"1970-01-01 00:01:30", "1970-01-01 00:03:00", "1970-01-01 00:04:30"}));
  EXPECT_EQ(Three("@hourly", "2026-01-01 00:30:00")[0], "2026-01-01 01:00:00");
  EXPECT_EQ(Three("@daily", "2026-01-01 00:30:00")[0], "2026-01-02 00:00:00");
  EXPECT_EQ(Three("@weekly", "2026-11-26 00:30:00")[0], "2026-11-29 00:00:00");
  EXPECT_EQ(Three("@monthly", "2026-01-01 00:30:00")[0], "2026-02-01 00:00:00");
  EXPECT_EQ(Three("@yearly", "2026-01-01 00:30:00")[0], "2027-01-01 00:00:00");
  EXPECT_FALSE(Schedule::Every(absl::Milliseconds(999)).ok());
  EXPECT_FALSE(Schedule::Every(absl::InfiniteDuration()).ok());
  EXPECT_FALSE(Schedule::Every(absl::Seconds(1) + absl::Nanoseconds(1)).ok());
}

TEST(ScheduleTest, NextAndLastAgree) {
  Prng prng(1);
  for (const char* text : {"* * * * *", "*/7 3-9 * * *", "0 0 13 * 5", "59 23 31 12 *",
                           "0 0 29 2 *", "@every 90s", "@every 36h"}) {
    absl::StatusOr<Schedule> schedule = Schedule::Parse(text);
    ASSERT_TRUE(schedule.ok());
    for (int i = 0; i < 50; ++i) {
      const absl::Time time =
          absl::FromUnixMillis(prng.Between(946'684'800'000, 4'000'000'000'000));
      const absl::Time next = schedule->Next(time), last = schedule->Last(time);
      EXPECT_GT(next, time);
      EXPECT_LE(last, time);
      EXPECT_EQ(schedule->Next(last), next) << text << " " << Text(time);
      EXPECT_EQ(schedule->Last(next), next);
      EXPECT_EQ(schedule->Last(next - absl::Milliseconds(1)), last);
    }
  }
}

TEST(ScheduleTest, RefusesWhatItDoesNotUnderstandAndSaysWhich) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "fields"},
      {"* * * *", "4 fields"},
      {"* * * * * *", "6 fields"},
      {"60 * * * *", "minute"},
      {"* 24 * * *", "hour"},
      {"* * 0 * *", "day of the month"},
      {"* * 32 * *", "day of the month"},
      {"* * * 13 *", "month"},
      {"* * * january *", "month"},
      {"* * * * 8", "day of the week"},
      {"5-1 * * * *", "backwards"},
      {"1-2-3 * * * *", "range"},
      {"*/0 * * * *", "step"},
      {"*/60 * * * *", "step"},
      {"*/x * * * *", "step"},
      {"1/2/3 * * * *", "step"},
      {",1 * * * *", "minute"},
      {"1,,2 * * * *", "minute"},
      {"-1 * * * *", "minute"},
      {"+1 * * * *", "minute"},
      {"1.5 * * * *", "minute"},
      {"99999999999999999999 * * * *", "minute"},
      {"@every", "fields"},
      {"@every soon", "duration"},
      {"@every 10ms", "at least"},
      {"@every -1h", "at least"},
      {"@sometimes", "fields"},
      {"\xff\x01 * * * *", "minute"},
      {std::string(1000, '*'), "long"},
  };
  for (const auto& [text, why] : bad) {
    absl::StatusOr<Schedule> schedule = Schedule::Parse(text);
    EXPECT_EQ(schedule.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(absl::StrContains(schedule.status().message(), why))
        << text << ": " << schedule.status();
  }
}

TEST(ScheduleTest, AnyTextIsAnsweredAndNothingHangs) {
  Prng prng(2);
  const std::string alphabet = "0123456789*/-,@ evrymonsu\t\xff";
  int understood = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (uint64_t n = prng.Below(20); n > 0; --n) text += alphabet[prng.Below(alphabet.size())];
    understood += Schedule::Parse(text).ok() ? 1 : 0;
  }
  EXPECT_LT(understood, 20'000);
}

}  // namespace
}  // namespace conclave
