// CronPlan: which tick a leader runs, skips or waits for.
#include "conclave/coordination/cron_plan.h"

#include "gtest/gtest.h"

namespace conclave {
namespace {

using Kind = CronPlan::Step::Kind;

absl::Time Minute(int64_t n) { return absl::UnixEpoch() + absl::Minutes(1000 + n); }

CronPlan Plan(CatchUp catch_up) {
  return CronPlan(*Schedule::Parse("* * * * *"), catch_up, absl::Seconds(20));
}

TEST(CronRecordTest, ReadsWhatItWritesAndRefusesTheRest) {
  const CronRecord record{.tick = Minute(3) + absl::Milliseconds(7), .term = 42};
  EXPECT_EQ(ParseRecord(EncodeRecord(record)), record);
  EXPECT_EQ(EncodeRecord({.tick = absl::UnixEpoch(), .term = 1}), "1970-01-01T00:00:00+00:00 1");
  for (const char* bad : {"", " ", "42", "1970-01-01T00:00:00+00:00", "yesterday 1",
                          "1970-01-01T00:00:00+00:00 x", "1970-13-01T00:00:00+00:00 1"}) {
    EXPECT_FALSE(ParseRecord(bad).has_value()) << bad;
  }
}

TEST(CronPlanTest, BeginsWithTheNextTickNotWithThoseOfThePast) {
  const CronPlan plan = Plan(CatchUp::kOnce);
  const CronPlan::Step begin = plan.Next(std::nullopt, Minute(5) + absl::Seconds(1));
  EXPECT_EQ(begin.kind, Kind::kBegin);
  EXPECT_EQ(begin.when, Minute(5));
  const CronPlan::Step wait =
      plan.Next(CronRecord{.tick = begin.when}, Minute(5) + absl::Seconds(1));
  EXPECT_EQ(wait.kind, Kind::kWait);
  EXPECT_EQ(wait.when, Minute(6));
}

TEST(CronPlanTest, RunsATickWhenItIsDue) {
  for (CatchUp catch_up : {CatchUp::kSkip, CatchUp::kOnce}) {
    const CronPlan::Step step = Plan(catch_up).Next(CronRecord{.tick = Minute(5)}, Minute(6));
    EXPECT_EQ(step.kind, Kind::kRun);
    EXPECT_EQ(step.when, Minute(6));
  }
}

TEST(CronPlanTest, OfThoseMissedTheLastOneIsRunOrNone) {
  const absl::Time now = Minute(60) + absl::Seconds(30);
  const CronRecord last{.tick = Minute(5)};
  const CronPlan::Step once = Plan(CatchUp::kOnce).Next(last, now);
  EXPECT_EQ(once.kind, Kind::kRun);
  EXPECT_EQ(once.when, Minute(60));
  const CronPlan::Step skip = Plan(CatchUp::kSkip).Next(last, now);
  EXPECT_EQ(skip.kind, Kind::kSkip);
  EXPECT_EQ(skip.when, Minute(60));
  // Not late: the tick of this minute is run, whatever was missed before.
  const CronPlan::Step on_time = Plan(CatchUp::kSkip).Next(last, Minute(60) + absl::Seconds(20));
  EXPECT_EQ(on_time.kind, Kind::kRun);
  EXPECT_EQ(on_time.when, Minute(60));
}

TEST(CronPlanTest, AClockThatGoesBackRepeatsNothing) {
  const CronPlan::Step step = Plan(CatchUp::kOnce).Next(CronRecord{.tick = Minute(60)}, Minute(30));
  EXPECT_EQ(step.kind, Kind::kWait);
  EXPECT_EQ(step.when, Minute(61));
}

}  // namespace
}  // namespace conclave
