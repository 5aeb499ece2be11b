// Calls: what is tried again, where, and for how long; what the caller learns.
#include "conclave/client/core/engine.h"

#include <set>

#include "conclave/client/core/calls.h"
#include "conclave/client/core/endpoint_pool.h"
#include "conclave/client/core/error.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kUnavailable = 14;
constexpr int kDeadlineExceeded = 4;

class EngineTest : public testing::EngineFixture {
 protected:
  CallId Get() {
    return calls::Range(engine_, {.range = "k"}, now_ + seconds(5),
                        [this](absl::StatusOr<RangeResult> result) {
                          ++answers_;
                          status_ = result.status();
                        });
  }
  CallId Put() {
    return calls::Put(engine_, {.key = "k", .value = "v"}, now_ + seconds(5),
                      [this](absl::StatusOr<PutResult> result) {
                        ++answers_;
                        status_ = result.status();
                      });
  }

  int answers_ = 0;
  absl::Status status_;
};

TEST_F(EngineTest, AnAnswerComesOnceAndNotFromWithin) {
  Get();
  EXPECT_TRUE(LastCall().require_leader);
  engine_.OnUnaryDone(LastCall().id, {}, "");
  EXPECT_EQ(answers_, 0);
  engine_.Advance(now_);
  EXPECT_EQ(answers_, 1);
  EXPECT_TRUE(status_.ok());
  engine_.OnUnaryDone(LastCall().id, {}, "");
  engine_.Advance(now_);
  EXPECT_EQ(answers_, 1);
}

TEST_F(EngineTest, AReadGoesToTheOtherMembersAtOnce) {
  Get();
  std::set<size_t> tried = {LastCall().endpoint};
  for (int i = 0; i < 2; ++i) {
    FailCall(kUnavailable, "gone");
    tried.insert(LastCall().endpoint);
  }
  EXPECT_EQ(wire_.calls.size(), 3u);
  EXPECT_EQ(tried.size(), 3u);
  Answer(etcdserverpb::RangeResponse());
  EXPECT_TRUE(status_.ok());
}

TEST_F(EngineTest, AReadThatNobodyAnswersEndsAtItsDeadlineAfterAFewAttempts) {
  Get();
  while (answers_ == 0 && now_ < Instant(std::chrono::hours(2))) {
    FailCall(kUnavailable, "gone");
    Go(milliseconds(10));
  }
  EXPECT_EQ(status_.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LE(now_, Instant(std::chrono::hours(1) + seconds(6)));
  EXPECT_GT(wire_.calls.size(), 5u);
  EXPECT_LT(wire_.calls.size(), 60u);  // with pauses
}

TEST_F(EngineTest, AReadLeavesAMemberThatDoesNotAnswerAWriteStays) {
  Get();
  EXPECT_EQ(LastCall().timeout, seconds(1));
  FailCall(kDeadlineExceeded, "Deadline Exceeded");
  EXPECT_EQ(LastCall().timeout, seconds(2));
  Put();
  EXPECT_EQ(LastCall().timeout, seconds(5));
}

TEST_F(EngineTest, AWriteThatMayHaveHappenedIsNotRepeated) {
  for (const auto& [code, text] :
       std::vector<std::pair<int, std::string>>{{kUnavailable, "Socket closed"},
                                                {kUnavailable, "etcdserver: request timed out"},
                                                {kUnavailable, "etcdserver: leader changed"},
                                                {kUnavailable, "etcdserver: server stopped"},
                                                {kDeadlineExceeded, "Deadline Exceeded"},
                                                {13, "Received RST_STREAM"},
                                                {2, "something new"},
                                                {8, "etcdserver: mvcc: database space exceeded"}}) {
    const size_t calls = wire_.calls.size();
    Put();
    FailCall(code, text);
    Go(seconds(1));
    EXPECT_EQ(wire_.calls.size(), calls + 1) << text;
    EXPECT_TRUE(IsOutcomeUnknown(status_)) << text;
  }
}

TEST_F(EngineTest, AWriteThatProvablyDidNotHappenIsRepeated) {
  for (const auto& [code, text, sent] : std::vector<std::tuple<int, std::string, bool>>{
           {kUnavailable, "cannot connect", false},
           {kDeadlineExceeded, "not connected in time", false},
           {kUnavailable, "etcdserver: no leader", true},
           {2, "etcdserver: too many requests", true},
           {9, "etcdserver: rpc not supported for learner", true}}) {
    const size_t calls = wire_.calls.size();
    answers_ = 0;
    Put();
    FailCall(code, text, sent);
    Go(seconds(1));
    EXPECT_EQ(answers_, 0) << text;
    ASSERT_EQ(wire_.calls.size(), calls + 2) << text;
    Answer(etcdserverpb::PutResponse());
    EXPECT_TRUE(status_.ok());
  }
}

TEST_F(EngineTest, ARefusalIsFinalAndKnown) {
  Put();
  FailCall(5, "etcdserver: requested lease not found");
  EXPECT_EQ(status_.code(), absl::StatusCode::kNotFound);
  std::optional<ErrorDetail> detail = GetErrorDetail(status_);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->server_error, "etcdserver: requested lease not found");
  EXPECT_EQ(detail->endpoint, "m" + std::to_string(LastCall().endpoint));
  EXPECT_EQ(detail->outcome, Outcome::kNotExecuted);
  EXPECT_FALSE(detail->retryable);
}

TEST_F(EngineTest, ACancelledCallSaysWhetherItMayHaveHappened) {
  const CallId sent = Put();
  engine_.Cancel(sent);
  engine_.Cancel(sent);
  EXPECT_TRUE(LastCall().cancelled);
  FailCall(1, "CANCELLED");
  EXPECT_EQ(status_.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(IsOutcomeUnknown(status_));
  const CallId unsent = Put();
  engine_.Cancel(unsent);
  FailCall(1, "CANCELLED", /*sent=*/false);
  EXPECT_FALSE(IsOutcomeUnknown(status_));
  EXPECT_EQ(answers_, 2);
}

TEST_F(EngineTest, ACallMayBeCancelledBetweenAttempts) {
  const CallId id = Get();
  for (int i = 0; i < 4; ++i) FailCall(kUnavailable, "gone");
  engine_.Cancel(id);
  engine_.Advance(now_);
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(status_.code(), absl::StatusCode::kCancelled);
  const size_t calls = wire_.calls.size();
  Go(seconds(10));
  EXPECT_EQ(wire_.calls.size(), calls);
}

TEST_F(EngineTest, ShutdownAnswersEverything) {
  Get();
  Put();
  engine_.Shutdown();
  EXPECT_EQ(answers_, 2);
  EXPECT_EQ(status_.code(), absl::StatusCode::kCancelled);
  Get();
  engine_.Advance(now_);
  EXPECT_EQ(answers_, 3);
}

TEST_F(EngineTest, TheSameSeedMakesTheSameDecisions) {
  const auto run = [] {
    testing::FakeTransport wire;
    Engine engine(Options(3), wire);
    Instant now(seconds(1));
    engine.Advance(now);
    calls::Range(engine, {.range = "k"}, now + seconds(5), [](absl::StatusOr<RangeResult>) {});
    std::vector<std::pair<size_t, Instant>> trace;
    while (engine.NextDeadline() != kNever || trace.size() < wire.calls.size()) {
      if (trace.size() < wire.calls.size()) {
        trace.emplace_back(wire.calls.back().endpoint, now);
        engine.OnUnaryDone(wire.calls.back().id, {.code = kUnavailable, .message = "gone"}, "");
      }
      if (engine.NextDeadline() != kNever) now = std::max(now, engine.NextDeadline());
      engine.Advance(now);
    }
    engine.Shutdown();
    return trace;
  };
  EXPECT_EQ(run(), run());
}

// ---- EndpointPool
// ----------------------------------------------------------------------------------

TEST(EndpointPoolTest, GoesRoundTheHealthyOnes) {
  Prng prng(1);
  EndpointPool pool({"a", "b", "c"}, prng);
  const Instant now(seconds(1));
  const size_t first = *pool.Pick(now);
  EXPECT_EQ(pool.Pick(now), (first + 1) % 3);
  pool.Failed((first + 2) % 3, now);
  EXPECT_EQ(pool.Pick(now), first);
  EXPECT_EQ(pool.Pick(now), (first + 1) % 3);
  EXPECT_EQ(pool.Pick(now + seconds(1)), (first + 2) % 3);
}

// Two failed often, some time ago, and are well; the third one was well, and fails now. It is
// shunned for less time than they are, each time, and must not be all that is tried.
TEST(EndpointPoolTest, WhenAllHaveFailedAllAreTriedInTurn) {
  Prng prng(1);
  EndpointPool pool({"a", "b", "c"}, prng);
  const Instant now(seconds(1));
  for (int i = 0; i < 8; ++i) {
    pool.Failed(0, now);
    pool.Failed(2, now);
  }
  ASSERT_EQ(pool.Pick(now), 1u);
  pool.Failed(1, now);
  EXPECT_FALSE(pool.AnyHealthy(now));
  std::set<size_t> picked;
  for (int i = 0; i < 3; ++i) picked.insert(*pool.Pick(now));
  EXPECT_EQ(picked.size(), 3u);
  pool.Succeeded(0);
  EXPECT_EQ(pool.Pick(now), 0u);
}

TEST(EndpointPoolTest, AFallbackIsUsedOnlyWhileAllOthersAreShunned) {
  Prng prng(1);
  EndpointPool pool({"given"}, prng);
  const Instant now(seconds(1));
  const auto change =
      pool.Set({{.name = "m1"}, {.name = "m2"}, {.name = "given", .fallback = true}});
  EXPECT_EQ(change.added, (std::vector<size_t>{1, 2}));
  EXPECT_TRUE(change.removed.empty());
  for (int i = 0; i < 6; ++i) EXPECT_NE(pool.Pick(now), 0u);
  pool.Failed(1, now);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(pool.Pick(now), 2u);
  pool.Failed(2, now);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(pool.Pick(now), 0u);
  EXPECT_NE(pool.Pick(now + seconds(1)), 0u);
}

TEST(EndpointPoolTest, WhoStaysKeepsItsIdAndWhatIsKnownOfItAndNoIdIsUsedTwice) {
  Prng prng(1);
  EndpointPool pool({"a", "b"}, prng);
  const Instant now(seconds(1));
  pool.Failed(1, now);
  const auto change = pool.Set({{.name = "b"}, {.name = "c"}});
  EXPECT_EQ(change.added, (std::vector<size_t>{2}));
  EXPECT_EQ(change.removed, (std::vector<size_t>{0}));
  EXPECT_FALSE(pool.Contains(0));
  EXPECT_EQ(pool.Pick(now), 2u);
  EXPECT_EQ(pool.NameOf(1), "b");
  EXPECT_EQ(pool.NameOf(0), "");
  pool.Failed(0, now);  // of a call that was under way
  EXPECT_EQ(pool.Set({{.name = "a"}}).added, (std::vector<size_t>{3}));
  EXPECT_EQ(pool.Find("a"), 3u);
}

TEST(EndpointPoolTest, AnEmptyPoolPicksNobody) {
  Prng prng(1);
  EndpointPool pool({}, prng);
  EXPECT_FALSE(pool.Pick(Instant(seconds(1))).has_value());
  pool.Set({{.name = "a"}});
  EXPECT_EQ(pool.Pick(Instant(seconds(1))), 0u);
}

TEST(FullJitterTest, StaysWithinItsBoundsAndSpreads) {
  Prng prng(1);
  std::set<int64_t> seen;
  for (int failures = 0; failures < 70; ++failures) {
    const Duration delay = FullJitter(failures, milliseconds(100), seconds(5), prng);
    EXPECT_GT(delay, Duration(0));
    EXPECT_LE(delay, seconds(5));
    if (failures == 0) {
      EXPECT_LE(delay, milliseconds(100));
    }
    seen.insert(delay.count());
  }
  EXPECT_GT(seen.size(), 60u);
}

}  // namespace
}  // namespace conclave
