// An outage as the cluster sees it: how many attempts a thousand callers make, and how soon they
// are back when it ends.
#include <map>
#include <string>
#include <vector>

#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kUnavailable = 14;
constexpr int kCallers = 1000;
constexpr Duration kPatience = seconds(5);

class OutageTest : public testing::EngineFixture {
 protected:
  void StartCallers(int count) {
    for (int i = 0; i < count; ++i) {
      calls::Range(engine_, {.range = "k"}, now_ + kPatience,
                   [this](absl::StatusOr<RangeResult> result) {
                     ++(result.ok() ? succeeded_ : failed_);
                     if (!result.ok()) status_ = result.status();
                   });
    }
  }
  // Answers what is open, for as long as anything is, and lets `duration` pass.
  void Serve(Duration duration, bool up) {
    const Instant end = now_ + duration;
    for (;;) {
      const bool open = answered_ < wire_.calls.size();
      for (; answered_ < wire_.calls.size(); ++answered_) {
        const WireStatus status =
            up ? WireStatus{} : WireStatus{.code = kUnavailable, .message = "gone"};
        engine_.OnUnaryDone(wire_.calls[answered_].id, status, "");
      }
      engine_.Advance(now_);
      if (open) continue;
      if (now_ >= end) return;
      Go(std::min<Duration>(milliseconds(1), end - now_));
    }
  }

  size_t answered_ = 0;
  int succeeded_ = 0;
  int failed_ = 0;
  absl::Status status_;
};

TEST_F(OutageTest, AThousandCallersMakeFewAttemptsBeyondTheirFirst) {
  StartCallers(kCallers);
  Serve(kPatience + seconds(1), /*up=*/false);
  EXPECT_EQ(failed_, kCallers);
  EXPECT_EQ(status_.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(IsRetryable(status_));
  // The first ones, the burst and what the seconds added.
  const RetryBudgetOptions budget;
  const double retries_max = budget.burst + budget.per_second * 6;
  EXPECT_GT(wire_.calls.size(), kCallers + budget.burst);
  EXPECT_LE(static_cast<double>(wire_.calls.size()), kCallers + retries_max);
}

TEST_F(OutageTest, InALongOutageRetriesAreAShareOfTheCalls) {
  int callers = 0;
  for (int second = 0; second < 60; ++second) {
    StartCallers(kCallers);
    callers += kCallers;
    Serve(seconds(1), /*up=*/false);
  }
  EXPECT_LE(static_cast<double>(wire_.calls.size()), callers * 1.1 + 50 + 10 * 60);
}

TEST_F(OutageTest, WhenItEndsAllWhoWaitAreBackWithinAMoment) {
  StartCallers(kCallers);
  Serve(seconds(2), /*up=*/false);
  EXPECT_EQ(failed_, 0);
  Serve(seconds(2), /*up=*/true);
  EXPECT_EQ(succeeded_, kCallers);
}

TEST_F(OutageTest, OneMemberOfThreeGoneCostsNoCall) {
  StartCallers(kCallers);
  for (int i = 0; i < 100; ++i) {
    for (; answered_ < wire_.calls.size(); ++answered_) {
      const testing::FakeTransport::Call& call = wire_.calls[answered_];
      const bool up = call.endpoint != 1;
      engine_.OnUnaryDone(
          call.id, up ? WireStatus{} : WireStatus{.code = kUnavailable, .message = "gone"}, "");
    }
    Go(milliseconds(10));
  }
  EXPECT_EQ(succeeded_, kCallers);
}

TEST_F(OutageTest, AHeldCallMayBeCancelled) {
  StartCallers(kCallers);
  Serve(milliseconds(500), /*up=*/false);
  const CallId id = calls::Range(engine_, {.range = "k"}, now_ + kPatience,
                                 [this](absl::StatusOr<RangeResult> r) { status_ = r.status(); });
  Serve(milliseconds(500), /*up=*/false);
  EXPECT_TRUE(status_.ok()) << "held, not failed: " << status_;
  engine_.Cancel(id);
  engine_.Advance(now_);
  EXPECT_EQ(status_.code(), absl::StatusCode::kCancelled);
}

// ---- A set of endpoints that changes
// ---------------------------------------------------------------

class NoEndpointTest : public OutageTest {
 protected:
  NoEndpointTest() : empty_(Options(0), wire_) { empty_.Advance(now_); }
  void TearDown() override {
    empty_.Shutdown();
    OutageTest::TearDown();
  }
  Engine empty_;
};

TEST_F(NoEndpointTest, CallsWaitForTheFirstOneUntilTheirDeadline) {
  absl::Status early, late = absl::UnknownError("not yet");
  calls::Range(empty_, {.range = "k"}, now_ + seconds(1),
               [&](absl::StatusOr<RangeResult> r) { early = r.status(); });
  calls::Put(empty_, {.key = "k"}, now_ + seconds(9),
             [&](absl::StatusOr<PutResult> r) { late = r.status(); });
  EXPECT_TRUE(wire_.calls.empty());
  empty_.Advance(now_ + seconds(2));
  EXPECT_EQ(early.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(IsOutcomeUnknown(early));
  empty_.SetEndpoints({{.name = "found:1"}});
  ASSERT_EQ(wire_.calls.size(), 1u);
  empty_.OnUnaryDone(wire_.calls[0].id, {}, "");
  empty_.Advance(now_ + seconds(2));
  EXPECT_TRUE(late.ok()) << late;
}

TEST_F(NoEndpointTest, AWatchBeginsWithTheFirstOne) {
  empty_.watches().Add("k", {.from_revision = 1}, [](WatchBatch) {});
  empty_.Advance(now_ + std::chrono::hours(1));
  EXPECT_TRUE(wire_.streams.empty());
  empty_.SetEndpoints({{.name = "found:1"}});
  EXPECT_EQ(wire_.streams.size(), 1u);
}

TEST_F(OutageTest, StreamsLeaveAMemberThatIsNoLongerAnEndpointAndStayOnOneThatIs) {
  engine_.watches().Add("k", {.from_revision = 1}, [](WatchBatch) {});
  Go(milliseconds(1));
  ASSERT_EQ(wire_.streams.size(), 1u);
  const std::string name = "m" + std::to_string(LastStream().endpoint);
  engine_.SetEndpoints({{.name = name}, {.name = "new"}});
  Go(milliseconds(1));
  EXPECT_EQ(wire_.streams.size(), 1u);
  engine_.SetEndpoints({{.name = "new"}});
  Go(milliseconds(1));
  ASSERT_EQ(wire_.streams.size(), 2u);
  EXPECT_TRUE(wire_.streams[0].closed);
  EXPECT_EQ(LastStream().endpoint, 3u);
  EXPECT_EQ(wire_.added, (std::map<size_t, std::string>{{3, "new"}}));
  EXPECT_EQ(wire_.removed.size(), 3u);
}

}  // namespace
}  // namespace conclave
