// The keep-alive stream: when leases are renewed, how long they may be trusted, when they are lost.
#include "conclave/client/core/lease_keeper.h"

#include <vector>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaseKeeperTest : public testing::EngineFixture {
 protected:
  explicit LeaseKeeperTest(size_t members = 3) : EngineFixture(members) {}
  void Keep(LeaseId lease, Duration ttl = seconds(9)) {
    engine_.leases().Keep(lease, ttl, milliseconds(900), now_,
                          [this](SessionHealth health, Instant deadline) {
                            health_.push_back(health);
                            deadline_ = deadline;
                            if (health == SessionHealth::kLost) lost_at_ = now_;
                          });
  }
  void Renewed(LeaseId lease, int64_t ttl = 9) {
    LeaseKeepAliveResponse response;
    response.set_id(lease);
    response.set_ttl(ttl);
    Say(response);
  }

  std::vector<SessionHealth> health_;
  Instant deadline_{};
  Instant lost_at_{};
};

class LeaseKeeperOfSevenTest : public LeaseKeeperTest {
 protected:
  LeaseKeeperOfSevenTest() : LeaseKeeperTest(7) {}
};

TEST_F(LeaseKeeperTest, RenewsAtAThirdOfTheTtlAllOnOneStream) {
  Keep(1);
  Keep(2);
  EXPECT_EQ(wire_.streams.size(), 1u);
  Go(milliseconds(2999));
  EXPECT_TRUE(LastStream().sent.empty());
  Go(milliseconds(1));
  ASSERT_EQ(LastStream().sent.size(), 2u);
  EXPECT_EQ(Sent<LeaseKeepAliveRequest>(0).id(), 1);
  Renewed(1);
  Renewed(2);
  Go(seconds(3));
  EXPECT_EQ(LastStream().sent.size(), 4u);
  EXPECT_EQ(health_, (std::vector{SessionHealth::kAlive, SessionHealth::kAlive}));
}

TEST_F(LeaseKeeperTest, TheDeadlineCountsFromTheSendingOfTheRenewalNotFromItsAnswer) {
  Keep(1);
  Go(seconds(3));
  const Instant sent_at = now_;
  Go(milliseconds(1200));
  Renewed(1);
  EXPECT_EQ(deadline_, sent_at + seconds(9) - milliseconds(900));
}

TEST_F(LeaseKeeperTest, ALostStreamRenewsAtOnceOnAnotherMember) {
  Keep(1);
  Go(seconds(3));
  const size_t member = LastStream().endpoint;
  BreakStream();
  EXPECT_EQ(health_, std::vector{SessionHealth::kSuspect});
  Go(milliseconds(100));
  ASSERT_EQ(wire_.streams.size(), 2u);
  EXPECT_NE(LastStream().endpoint, member);
  ASSERT_EQ(LastStream().sent.size(), 1u);
  Renewed(1);
  EXPECT_EQ(health_.back(), SessionHealth::kAlive);
}

TEST_F(LeaseKeeperTest, MembersWithoutALeaderDoNotLoseALeaseBeforeItsDeadline) {
  Keep(1);
  const Instant deadline = now_ + seconds(9) - milliseconds(900);
  Go(seconds(3));
  // An election that takes four seconds: every member refuses, whichever is asked.
  while (now_ < Instant(std::chrono::hours(1)) + seconds(7)) {
    if (!LastStream().closed && engine_.NextDeadline() != kNever) {
      engine_.OnStreamClosed(LastStream().id, {.code = 14, .message = "etcdserver: no leader"});
      engine_.Advance(now_);
    }
    Go(milliseconds(50));
  }
  EXPECT_EQ(health_, std::vector{SessionHealth::kSuspect});
  EXPECT_LT(wire_.streams.size(), 60u) << "with pauses";
  Go(milliseconds(500));
  while (LastStream().closed || LastStream().sent.empty()) Go(milliseconds(1));
  ASSERT_LT(now_, deadline);
  Renewed(1);
  EXPECT_EQ(health_.back(), SessionHealth::kAlive);
  EXPECT_GT(deadline_, now_);
}

TEST_F(LeaseKeeperTest, AHungMemberIsLeftLongBeforeTheLeaseEnds) {
  Keep(1);
  Go(seconds(3));
  Go(milliseconds(1600));
  EXPECT_EQ(health_, std::vector{SessionHealth::kSuspect});
  EXPECT_TRUE(wire_.streams[0].closed);
  ASSERT_GE(wire_.streams.size(), 2u);
  // A late answer of the old stream counts for nothing.
  LeaseKeepAliveResponse late;
  late.set_id(1);
  late.set_ttl(9);
  engine_.OnStreamMessage(wire_.streams[0].id, late.SerializeAsString());
  engine_.Advance(now_);
  EXPECT_EQ(health_.back(), SessionHealth::kSuspect);
}

// The time of a lease of three seconds is enough to find one that answers behind three of seven
// that do not, if it begins to look after a second.
TEST_F(LeaseKeeperOfSevenTest, AShortLeaseOutlivesThreeHungMembersMetInARow) {
  Keep(1, seconds(3));
  Go(seconds(1));
  for (size_t hung = 1; hung <= 3; ++hung) {
    ASSERT_EQ(wire_.streams.size(), hung);
    ASSERT_EQ(LastStream().sent.size(), 1u);
    while (wire_.streams.size() == hung && engine_.leases().size() == 1) Go(milliseconds(1));
  }
  ASSERT_EQ(wire_.streams.size(), 4u);
  ASSERT_EQ(LastStream().sent.size(), 1u);
  EXPECT_GE(deadline_ - now_, milliseconds(300)) << "time for the answer";
  Renewed(1, /*ttl=*/3);
  EXPECT_EQ(health_.back(), SessionHealth::kAlive);
}

TEST_F(LeaseKeeperTest, WithoutAnyAnswerItIsLostAtTheLocalDeadlineAndStaysLost) {
  const Instant granted = now_;
  Keep(1);
  Go(seconds(20));
  EXPECT_EQ(health_.back(), SessionHealth::kLost);
  EXPECT_EQ(lost_at_, granted + seconds(9) - milliseconds(900));
  EXPECT_EQ(engine_.leases().size(), 0u);
  const size_t heard = health_.size();
  Renewed(1);
  Go(seconds(20));
  EXPECT_EQ(health_.size(), heard);
}

TEST_F(LeaseKeeperTest, ALeaseDoesNotWaitForWhatAnEarlierOneWentThrough) {
  Keep(1);
  // Every member refuses, until the lease is lost.
  while (engine_.leases().size() > 0) {
    if (!LastStream().closed && engine_.NextDeadline() != kNever) {
      engine_.OnStreamClosed(LastStream().id, {.code = 14, .message = "etcdserver: no leader"});
      engine_.Advance(now_);
    }
    Go(milliseconds(50));
  }
  Go(seconds(30));  // nobody is shunned any more
  Keep(2, seconds(3));
  Go(seconds(1));
  const size_t hung = LastStream().endpoint;
  Go(milliseconds(276));  // a quarter of the time until the deadline
  EXPECT_NE(LastStream().endpoint, hung);
  ASSERT_EQ(LastStream().sent.size(), 1u) << "it is renewed on another member at once";
}

TEST_F(LeaseKeeperTest, ALeaseThatTheServerDoesNotKnowIsLostAtOnce) {
  Keep(1);
  Keep(2);
  Go(seconds(3));
  Renewed(1, /*ttl=*/0);
  EXPECT_EQ(health_, std::vector{SessionHealth::kLost});
  EXPECT_EQ(engine_.leases().size(), 1u);
  Renewed(2);
  EXPECT_EQ(health_.back(), SessionHealth::kAlive);
}

TEST_F(LeaseKeeperTest, TheServersTtlHolds) {
  Keep(1);
  Go(seconds(3));
  const Instant sent_at = now_;
  Renewed(1, /*ttl=*/30);
  EXPECT_EQ(deadline_, sent_at + seconds(30) - milliseconds(900));
  Go(milliseconds(9999));
  EXPECT_EQ(LastStream().sent.size(), 1u);
  Go(milliseconds(1));
  EXPECT_EQ(LastStream().sent.size(), 2u);
}

TEST_F(LeaseKeeperTest, ForgottenLeasesTakeTheStreamAlong) {
  Keep(1);
  engine_.leases().Forget(1);
  EXPECT_TRUE(LastStream().closed);
  Go(seconds(20));
  EXPECT_TRUE(health_.empty());
}

}  // namespace
}  // namespace conclave
