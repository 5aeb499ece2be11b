// Barrier and DoubleBarrier against real servers.
#include "conclave/coordination/barrier.h"

#include <atomic>
#include <thread>
#include <vector>

#include "conclave/coordination/double_barrier.h"
#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::AMoment;
using testing::InThread;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class BarrierTest : public testing::RecipeTest {};

TEST_P(BarrierTest, WhereNobodyHoldsItWaitingIsOver) {
  EXPECT_TRUE(Barrier(client(), name_).Wait(Soon()).ok());
}

TEST_P(BarrierTest, AllWaitUntilItIsReleased) {
  Barrier barrier(client(), name_);
  ASSERT_TRUE(barrier.Hold().ok());
  EXPECT_EQ(barrier.Hold().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(barrier.Wait(AMoment()).code(), absl::StatusCode::kDeadlineExceeded);
  std::stop_source stop;
  auto stopped = InThread([&] { return barrier.Wait({.stop = stop.get_token()}); });
  stop.request_stop();
  EXPECT_EQ(stopped.get().code(), absl::StatusCode::kCancelled);
  std::vector<std::future<absl::Status>> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(InThread([&] { return barrier.Wait(Soon()); }));
  EXPECT_EQ(waiting[0].wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  ASSERT_TRUE(barrier.Release().ok());
  for (auto& wait : waiting) {
    const absl::Status status = wait.get();
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_TRUE(barrier.Release().ok());
  auto held = barrier.Held();
  ASSERT_TRUE(held.ok());
  EXPECT_FALSE(*held);
}

TEST_P(BarrierTest, OneHeldOnASessionGoesWithIt) {
  Barrier barrier(client(), name_);
  Session session = NewSession();
  ASSERT_TRUE(barrier.Hold(session).ok());
  auto waiting = InThread([&] { return barrier.Wait(Soon()); });
  ASSERT_TRUE(client().Revoke(session.lease_id()).ok());
  EXPECT_TRUE(waiting.get().ok());
  EXPECT_EQ(barrier.Hold(Session()).code(), absl::StatusCode::kAborted);
}

TEST_P(BarrierTest, RefusesNamesThatCannotBe) {
  for (const std::string& bad : {std::string(), std::string("a/"), std::string(2000, 'x')}) {
    Barrier barrier(client(), bad);
    EXPECT_EQ(barrier.Hold().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(barrier.Wait().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(barrier.Release().code(), absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, BarrierTest, ::testing::ValuesIn(AllServers()), ServerName);

class DoubleBarrierTest : public testing::RecipeTest {};

TEST_P(DoubleBarrierTest, AllEnterTogetherAndLeaveTogetherRoundAfterRound) {
  constexpr int kMembers = 4, kRounds = 3;
  std::atomic<int> inside = 0, early = 0, late = 0;
  std::atomic<int> arrived[kRounds] = {}, done[kRounds] = {};
  std::vector<std::future<absl::Status>> members;
  for (int i = 0; i < kMembers; ++i) {
    members.push_back(InThread([&]() -> absl::Status {
      Session session = NewSession();
      DoubleBarrier barrier(session, name_, kMembers);
      int64_t last_round = 0;
      for (int round = 0; round < kRounds; ++round) {
        ++arrived[round];
        if (absl::Status in = barrier.Enter(Soon()); !in.ok()) return in;
        if (arrived[round] != kMembers) ++early;
        ++done[round];
        absl::StatusOr<Departure> out = barrier.Leave(Soon());
        if (!out.ok()) return out.status();
        if (done[round] != kMembers) ++late;
        if (out->round <= last_round) return absl::InternalError("rounds do not grow");
        last_round = out->round;
        if (out->lost.has_value() && !out->lost->empty()) {
          return absl::InternalError("nobody died");
        }
      }
      return absl::OkStatus();
    }));
  }
  for (auto& member : members) {
    const absl::Status status = member.get();
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(early, 0);
  EXPECT_EQ(late, 0);
  EXPECT_EQ(Count(name_ + "/waiters/"), 0);
  EXPECT_EQ(Count(name_ + "/left/"), 0);
  EXPECT_EQ(Count(name_ + "/ready"), 0);
}

TEST_P(DoubleBarrierTest, OneThatDiesInsideIsNoticedAndNotWaitedFor) {
  Session a = NewSession(), b = NewSession(), c = NewSession();
  DoubleBarrier first(a, name_, 3), second(b, name_, 3), third(c, name_, 3);
  auto one = InThread([&] { return first.Enter(Soon()); });
  auto two = InThread([&] { return second.Enter(Soon()); });
  ASSERT_TRUE(third.Enter(Soon()).ok());
  ASSERT_TRUE(one.get().ok() && two.get().ok());
  EXPECT_EQ(first.Enter().code(), absl::StatusCode::kFailedPrecondition);
  auto leaving = InThread([&] { return first.Leave(Soon()); });
  ASSERT_TRUE(WaitFor([&] {
    auto look = second.Look();
    return look.ok() && look->inside == 2;
  }));
  ASSERT_TRUE(client().Revoke(c.lease_id()).ok());
  ASSERT_TRUE(WaitFor([&] {
    auto look = second.Look();
    return look.ok() && look->lost.size() == 1;
  }));
  EXPECT_EQ(second.Look()->lost[0], absl::StrCat(absl::Hex(c.lease_id())));
  EXPECT_EQ(leaving.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  auto out = second.Leave(Soon());
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_TRUE(out->lost.has_value());
  EXPECT_EQ(out->lost->size(), 1u);
  auto other = leaving.get();
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_TRUE(other->lost.has_value());
  EXPECT_EQ(other->lost->size(), 1u);
  EXPECT_EQ(third.Leave(Soon()).status().code(), absl::StatusCode::kAborted);
}

TEST_P(DoubleBarrierTest, OneThatDiesWhileItWaitsIsNotCounted) {
  Session a = NewSession(), b = NewSession(), c = NewSession();
  DoubleBarrier first(a, name_, 2), second(b, name_, 2), third(c, name_, 2);
  auto dead = InThread([&] { return first.Enter(Soon()); });
  ASSERT_TRUE(WaitFor([&] { return Count(name_ + "/waiters/") == 1; }));
  ASSERT_TRUE(client().Revoke(a.lease_id()).ok());
  EXPECT_EQ(dead.get().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(second.Enter(AMoment()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Count(name_ + "/waiters/"), 0);  // gave up, and left nothing
  auto again = InThread([&] { return second.Enter(Soon()); });
  ASSERT_TRUE(third.Enter(Soon()).ok());
  EXPECT_TRUE(again.get().ok());
}

TEST_P(DoubleBarrierTest, WhoComesWhileARoundIsOnWaitsForTheNext) {
  Session a = NewSession(), b = NewSession(), c = NewSession();
  DoubleBarrier first(a, name_, 2), second(b, name_, 2), third(c, name_, 2);
  auto one = InThread([&] { return first.Enter(Soon()); });
  ASSERT_TRUE(second.Enter(Soon()).ok());
  ASSERT_TRUE(one.get().ok());
  EXPECT_EQ(third.Enter(AMoment()).code(), absl::StatusCode::kDeadlineExceeded);
  auto next = InThread([&] { return third.Enter(Soon()); });
  // Everybody of the round dies inside: whoever waits for its end ends it.
  ASSERT_TRUE(client().Revoke(a.lease_id()).ok());
  ASSERT_TRUE(client().Revoke(b.lease_id()).ok());
  Session d = NewSession();
  DoubleBarrier fourth(d, name_, 2);
  EXPECT_TRUE(fourth.Enter(Soon()).ok());
  EXPECT_TRUE(next.get().ok());
}

TEST_P(DoubleBarrierTest, RefusesWhatCannotBe) {
  Session a = NewSession(), b = NewSession();
  EXPECT_EQ(DoubleBarrier(a, name_, 0).Enter().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DoubleBarrier(a, name_, 101).Enter().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DoubleBarrier(a, "", 2).Enter().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DoubleBarrier(Session(), name_, 2).Enter().code(),
            absl::StatusCode::kFailedPrecondition);
  DoubleBarrier two(a, name_, 2), three(b, name_, 3);
  EXPECT_EQ(two.Leave().status().code(), absl::StatusCode::kFailedPrecondition);
  auto waiting = InThread([&] { return two.Enter(Soon()); });
  ASSERT_TRUE(WaitFor([&] { return Count(name_ + "/waiters/") == 1; }));
  EXPECT_EQ(three.Enter(Soon()).code(), absl::StatusCode::kFailedPrecondition);
  DoubleBarrier also_two(b, name_, 2);
  EXPECT_TRUE(also_two.Enter(Soon()).ok());
  EXPECT_TRUE(waiting.get().ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, DoubleBarrierTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
