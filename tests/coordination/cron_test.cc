// Cron against real servers, on a clock that the test moves.
#include "conclave/coordination/cron.h"

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class MovedClock : public CronClock {
 public:
  absl::Time Now() override {
    std::lock_guard lock(mutex_);
    return now_;
  }
  void WaitUntil(absl::Time time, std::stop_token stop) override {
    std::unique_lock lock(mutex_);
    bell_.wait(lock, stop, [&] { return now_ >= time; });
  }
  void Advance(absl::Duration duration) {
    std::lock_guard lock(mutex_);
    now_ += duration;
    bell_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any bell_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(500'000) + absl::Seconds(1);
};

// How often each tick ran.
class Runs {
 public:
  void Add(absl::Time tick) {
    std::lock_guard lock(mutex_);
    ++runs_[tick];
  }
  int total() {
    std::lock_guard lock(mutex_);
    int total = 0;
    for (const auto& [tick, times] : runs_) total += times;
    return total;
  }
  int most() {
    std::lock_guard lock(mutex_);
    int most = 0;
    for (const auto& [tick, times] : runs_) most = std::max(most, times);
    return most;
  }

 private:
  std::mutex mutex_;
  std::map<absl::Time, int> runs_;
};

class CronTest : public testing::RecipeTest {
 protected:
  void SetUp() override {
    testing::RecipeTest::SetUp();
    clock_ = std::make_shared<MovedClock>();
  }
  // Until somebody has settled the tick before now: the beginning.
  bool Begun(const Cron& cron) {
    return WaitFor([&] {
      auto last = cron.LastTick();
      return last.ok() && last->has_value();
    });
  }
  std::shared_ptr<MovedClock> clock_;
};

TEST_P(CronTest, EveryTickRunsOnceInTheWholeCluster) {
  Runs runs;
  std::vector<Cron> crons;
  for (int i = 0; i < 3; ++i) {
    auto cron = Cron::Start(client(), name_, {.schedule = "* * * * *", .clock = clock_},
                            [&](const CronRun& run, std::stop_token) {
                              runs.Add(run.tick);
                              EXPECT_FALSE(run.late);
                              EXPECT_GT(run.term, 0);
                              return absl::OkStatus();
                            });
    ASSERT_TRUE(cron.ok()) << cron.status();
    crons.push_back(*std::move(cron));
  }
  ASSERT_TRUE(Begun(crons[0]));
  EXPECT_EQ(runs.total(), 0);
  for (int tick = 1; tick <= 4; ++tick) {
    clock_->Advance(absl::Minutes(1));
    EXPECT_TRUE(WaitFor([&] { return runs.total() == tick; })) << tick;
    if (tick != 2) continue;
    // Another one leads from here on.
    for (Cron& cron : crons) {
      if (cron.IsLeader()) {
        Cron gone = std::move(cron);
        break;
      }
    }
  }
  EXPECT_EQ(runs.most(), 1);
}

TEST_P(CronTest, AfterAnOutageTheLastTickIsRunIfThatIsWanted) {
  for (CatchUp catch_up : {CatchUp::kOnce, CatchUp::kSkip}) {
    const std::string name = absl::StrCat(name_, static_cast<int>(catch_up));
    Runs runs;
    std::atomic<int> late = 0;
    const auto job = [&](const CronRun& run, std::stop_token) {
      late += run.late ? 1 : 0;
      runs.Add(run.tick);
      return absl::OkStatus();
    };
    const CronOptions options{.schedule = "*/10 * * * *", .catch_up = catch_up, .clock = clock_};
    {
      auto cron = Cron::Start(client(), name, options, job);
      ASSERT_TRUE(cron.ok());
      ASSERT_TRUE(Begun(*cron));
    }
    clock_->Advance(absl::Minutes(35));
    auto cron = Cron::Start(client(), name, options, job);
    ASSERT_TRUE(cron.ok());
    ASSERT_TRUE(WaitFor([&] {
      auto last = cron->LastTick();
      return last.ok() && last->has_value() && clock_->Now() - **last < absl::Minutes(10);
    }));
    const int caught_up = catch_up == CatchUp::kOnce ? 1 : 0;
    EXPECT_TRUE(WaitFor([&] { return runs.total() == caught_up; }));
    EXPECT_EQ(late, caught_up);
    clock_->Advance(absl::Minutes(5));  // the next one is on time, or nearly
    EXPECT_TRUE(WaitFor([&] { return runs.total() == caught_up + 1; }));
    EXPECT_EQ(late, caught_up);
  }
}

TEST_P(CronTest, AtMostOnceIsNotRepeatedAndAtLeastOnceIs) {
  for (bool at_least_once : {false, true}) {
    const std::string name = absl::StrCat(name_, at_least_once);
    std::atomic<int> tries = 0;
    auto cron =
        Cron::Start(client(), name,
                    {.schedule = "@every 1m",
                     .at_least_once = at_least_once,
                     .retry_pause = absl::Seconds(1),
                     .clock = clock_},
                    [&](const CronRun&, std::stop_token) {
                      return ++tries < 3 ? absl::UnavailableError("not today") : absl::OkStatus();
                    });
    ASSERT_TRUE(cron.ok());
    ASSERT_TRUE(Begun(*cron));
    clock_->Advance(absl::Minutes(1));
    ASSERT_TRUE(WaitFor([&] { return tries == 1; }));
    if (!at_least_once) {
      clock_->Advance(absl::Minutes(1));  // the next tick, not the old one again
      EXPECT_TRUE(WaitFor([&] { return tries == 2; }));
      continue;
    }
    // The waiting between the tries is on the clock as well.
    EXPECT_TRUE(WaitFor([&] {
      if (tries < 3) clock_->Advance(absl::Milliseconds(50));
      return tries == 3;
    }));
    EXPECT_TRUE(WaitFor([&] {
      auto last = cron->LastTick();
      return last.ok() && clock_->Now() - **last < absl::Minutes(1);
    }));
    EXPECT_EQ(tries, 3);
  }
}

TEST_P(CronTest, AJobThatRunsOnIsToldWhenTheCronGoes) {
  std::atomic<bool> running = false, told = false;
  {
    auto cron = Cron::Start(client(), name_, {.schedule = "* * * * *", .clock = clock_},
                            [&](const CronRun&, std::stop_token stop) {
                              running = true;
                              told = WaitFor([&] { return stop.stop_requested(); });
                              return absl::OkStatus();
                            });
    ASSERT_TRUE(cron.ok());
    ASSERT_TRUE(Begun(*cron));
    clock_->Advance(absl::Minutes(1));
    ASSERT_TRUE(WaitFor([&] { return running.load(); }));
  }
  EXPECT_TRUE(told);
}

TEST_P(CronTest, RefusesWhatCannotBe) {
  const auto job = [](const CronRun&, std::stop_token) { return absl::OkStatus(); };
  const auto code = [&](const std::string& name, const CronOptions& options) {
    return Cron::Start(client(), name, options, job).status().code();
  };
  EXPECT_EQ(code("", {.schedule = "* * * * *"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(name_, {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(name_, {.schedule = "* * * * 9"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(name_, {.schedule = "0 0 30 2 *"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(name_, {.schedule = "* * * * *", .grace = -absl::Seconds(1)}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(name_, {.schedule = "* * * * *", .ttl = absl::ZeroDuration()}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Cron::Start(client(), name_, {.schedule = "* * * * *"}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(CronTest, TheWallClockTicksAsWell) {
  std::atomic<int> runs = 0;
  auto cron =
      Cron::Start(client(), name_, {.schedule = "@every 1s"}, [&](const CronRun&, std::stop_token) {
        ++runs;
        return absl::OkStatus();
      });
  ASSERT_TRUE(cron.ok());
  EXPECT_TRUE(WaitFor([&] { return runs >= 2; }));
}

INSTANTIATE_TEST_SUITE_P(Servers, CronTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
