#include "conclave/server/lease/lessor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace conclave::lease {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Instant kStart{1000s};

LessorOptions Fast() {
  return {.checkpoint_lag_min = 1s, .checkpoint_ttl_fraction = 20, .expired_retry = 3s};
}

TEST(EffectiveTtl, IsRaisedToTheMinimumAndRefusedAboveTheMaximum) {
  EXPECT_EQ(*Lessor::EffectiveTtl(10, 2), 10);
  EXPECT_EQ(*Lessor::EffectiveTtl(1, 2), 2);
  EXPECT_EQ(*Lessor::EffectiveTtl(0, 2), 2);
  EXPECT_EQ(*Lessor::EffectiveTtl(-5, 2), 2);
  EXPECT_EQ(*Lessor::EffectiveTtl(kMaxTtlSeconds, 2), kMaxTtlSeconds);
  EXPECT_EQ(Lessor::EffectiveTtl(kMaxTtlSeconds + 1, 2).status(), LeaseTtlTooLargeError());
}

TEST(Lessor, SaysWhatClientsKnow) {
  Lessor lessor;
  ASSERT_TRUE(lessor.Grant(7, 10, kStart).ok());
  EXPECT_EQ(lessor.Grant(7, 10, kStart).message(), "etcdserver: lease already exists");
  EXPECT_EQ(lessor.Grant(8, kMaxTtlSeconds + 1, kStart).message(),
            "etcdserver: too large lease TTL");
  EXPECT_EQ(lessor.Revoke(8).status().message(), "etcdserver: requested lease not found");
  EXPECT_EQ(lessor.Attach("k", 8).message(), "etcdserver: requested lease not found");
  EXPECT_EQ(lessor.Grant(0, 10, kStart).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(lessor.Grant(9, 0, kStart).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Lessor, GivesTheKeysOfARevokedLeaseInOrder) {
  Lessor lessor;
  ASSERT_TRUE(lessor.Grant(1, 10, kStart).ok());
  for (const char* key : {"c", "a", "b", "a"}) ASSERT_TRUE(lessor.Attach(key, 1).ok());
  lessor.Detach("b", 1);
  lessor.Detach("x", 1);
  lessor.Detach("a", 99);
  EXPECT_THAT(lessor.Keys(1), ElementsAre("a", "c"));
  EXPECT_EQ(lessor.KeyCount(1), 2u);
  EXPECT_THAT(*lessor.Revoke(1), ElementsAre("a", "c"));
  EXPECT_FALSE(lessor.Exists(1));
  EXPECT_THAT(lessor.Keys(1), IsEmpty());
}

TEST(Lessor, OnlyAPrimaryDecidesAboutTime) {
  Lessor lessor(Fast());
  ASSERT_TRUE(lessor.Grant(1, 10, kStart).ok());
  EXPECT_THAT(lessor.Expired(kStart + 1h, 10), IsEmpty());
  EXPECT_THAT(lessor.DueCheckpoints(kStart + 5s, 10), IsEmpty());
  EXPECT_EQ(lessor.Renew(1, kStart).outcome, Lessor::Renewal::kNotPrimary);
  EXPECT_EQ(lessor.NextDeadline(), kNever);
  lessor.Promote(kStart, 0s);
  EXPECT_EQ(lessor.NextDeadline(), kStart + 10s);
  EXPECT_EQ(lessor.Renew(2, kStart).outcome, Lessor::Renewal::kNotFound);
  lessor.Demote();
  EXPECT_EQ(lessor.NextDeadline(), kNever);
}

TEST(Lessor, GivesExpiredLeasesOutInOrderOnceAndAgainIfNobodyRevokesThem) {
  Lessor lessor(Fast());
  lessor.Promote(kStart, 0s);
  for (LeaseId id = 1; id <= 5; ++id) ASSERT_TRUE(lessor.Grant(id, 10 - id, kStart).ok());
  EXPECT_THAT(lessor.Expired(kStart + 4s, 10), IsEmpty());
  EXPECT_THAT(lessor.Expired(kStart + 9s, 2), ElementsAre(5, 4));
  EXPECT_THAT(lessor.Expired(kStart + 9s, 10), ElementsAre(3, 2, 1));
  EXPECT_THAT(lessor.Expired(kStart + 9s, 10), IsEmpty());
  EXPECT_EQ(lessor.Renew(3, kStart + 9s).outcome, Lessor::Renewal::kExpired);
  ASSERT_TRUE(lessor.Revoke(4).ok());
  EXPECT_THAT(lessor.Expired(kStart + 12s, 10), ElementsAre(1, 2, 3, 5));
}

TEST(Lessor, ARenewalMovesTheDeadlineByTheWholeTtl) {
  Lessor lessor(Fast());
  lessor.Promote(kStart, 0s);
  ASSERT_TRUE(lessor.Grant(1, 10, kStart).ok());
  const Lessor::RenewResult renewed = lessor.Renew(1, kStart + 9s);
  EXPECT_EQ(renewed.outcome, Lessor::Renewal::kRenewed);
  EXPECT_EQ(renewed.ttl_seconds, 10);
  EXPECT_FALSE(renewed.must_replicate) << "no member knows of less than the TTL";
  EXPECT_THAT(lessor.Expired(kStart + 18s, 10), IsEmpty());
  EXPECT_EQ(lessor.TimeToLive(1, kStart + 12500ms)->remaining_seconds, 6);
  EXPECT_EQ(lessor.Renew(1, kStart + 19s).outcome, Lessor::Renewal::kExpired)
      << "ended is ended, also before Expired has seen it";
}

// A renewal can be on its way for longer than it lasts. When it comes, the end of the lease is on
// its way as well.
TEST(Lessor, ARenewalThatComesThroughTheLogTooLateStopsNoEnd) {
  Lessor lessor(Fast());
  lessor.Promote(kStart, 0s);
  ASSERT_TRUE(lessor.Grant(1, 10, kStart).ok());
  ASSERT_TRUE(lessor.Checkpoint(1, 7000, kStart + 3s));
  ASSERT_TRUE(lessor.Renew(1, kStart + 3s).must_replicate);
  EXPECT_FALSE(lessor.IsEnding(1));
  EXPECT_THAT(lessor.Expired(kStart + 13s, 10), ElementsAre(1));
  ASSERT_TRUE(lessor.Checkpoint(1, 10000, kStart + 14s));
  EXPECT_TRUE(lessor.IsEnding(1));
  EXPECT_EQ(lessor.Renew(1, kStart + 14s).outcome, Lessor::Renewal::kExpired);
  lessor.CheckInvariants();
  // Its end was lost with the leadership: it has what the others know.
  lessor.Demote();
  EXPECT_FALSE(lessor.IsEnding(1));
  lessor.Promote(kStart + 15s, 0s);
  EXPECT_EQ(lessor.Renew(1, kStart + 16s).outcome, Lessor::Renewal::kRenewed);
}

// A lease that nobody renews must not outlive its TTL because the leadership moves.
TEST(Lessor, RemainingTimeSurvivesChangesOfLeaderByCheckpoints) {
  Lessor leader(Fast());
  Lessor follower(Fast());
  leader.Promote(kStart, 0s);
  for (Lessor* lessor : {&leader, &follower}) ASSERT_TRUE(lessor->Grant(1, 10, kStart).ok());
  Instant now = kStart;
  for (; now < kStart + 4s; now += 100ms) {
    for (const LeaseImage& due : leader.DueCheckpoints(now, 100)) {
      for (Lessor* lessor : {&leader, &follower}) {
        ASSERT_TRUE(lessor->Checkpoint(due.id, due.remaining_ms, now));
      }
    }
  }
  EXPECT_EQ(leader.digest(), follower.digest());
  leader.Demote();
  follower.Promote(now, 0s);
  EXPECT_GE(follower.NextDeadline(), kStart + 10s) << "never early";
  EXPECT_LE(follower.NextDeadline(), kStart + 11s) << "late by one lag at most";

  // Who renews now must first tell the others, or the next leader would end the lease early.
  EXPECT_TRUE(follower.Renew(1, now).must_replicate);
  ASSERT_TRUE(follower.Checkpoint(1, 10000, now + 50ms));
  EXPECT_FALSE(follower.Renew(1, now + 60ms).must_replicate);
}

TEST(Lessor, WhoHandsOverTellsWhatIsNotDueYet) {
  Lessor leader(Fast());
  leader.Promote(kStart, 0s);
  ASSERT_TRUE(leader.Grant(1, 10, kStart).ok());
  ASSERT_TRUE(leader.Grant(2, 1000, kStart).ok());
  EXPECT_THAT(leader.DueCheckpoints(kStart + 500ms, 10), IsEmpty());
  const LeaseImage first{.id = 1, .ttl_seconds = 10, .remaining_ms = 9500};
  EXPECT_THAT(leader.DueCheckpoints(kStart + 500ms, 10, 900ms), ElementsAre(first));
  EXPECT_THAT(leader.DueCheckpoints(kStart + 500ms, 10, 900ms), IsEmpty()) << "each once";
  // The leadership stays: what was told counts, and the next is due a lag later.
  ASSERT_TRUE(leader.Checkpoint(1, 9500, kStart + 600ms));
  EXPECT_THAT(leader.DueCheckpoints(kStart + 1400ms, 10), IsEmpty());
  EXPECT_THAT(leader.DueCheckpoints(kStart + 1500ms, 10), testing::SizeIs(1));
}

TEST(Lessor, RemainingTimeSurvivesChangesOfLeaderByTheClock) {
  Lessor leader(Fast());
  Lessor follower(Fast());
  leader.Promote(kStart, 0s);
  for (Lessor* lessor : {&leader, &follower}) {
    ASSERT_TRUE(lessor->Grant(1, 10, kStart).ok());
    ASSERT_TRUE(lessor->Grant(2, 10, kStart).ok());
  }
  for (int second = 1; second <= 4; ++second) {
    const Instant now = kStart + std::chrono::seconds(second);
    for (Lessor* lessor : {&leader, &follower}) lessor->AdvanceClock(1000);
    EXPECT_THAT(leader.DueCheckpoints(now, 10), IsEmpty()) << "the clock says it for all";
  }
  EXPECT_TRUE(leader.Renew(2, kStart + 4s).must_replicate);
  for (Lessor* lessor : {&leader, &follower})
    ASSERT_TRUE(lessor->Checkpoint(2, 10000, kStart + 4s));
  EXPECT_EQ(leader.digest(), follower.digest());
  EXPECT_EQ(follower.TimeToLive(1, kStart + 4s)->remaining_seconds, 6);
  leader.Demote();
  follower.Promote(kStart + 4s, 0s);
  EXPECT_THAT(follower.Expired(kStart + 9999ms, 10), IsEmpty());
  EXPECT_THAT(follower.Expired(kStart + 10s, 10), ElementsAre(1));
  EXPECT_THAT(follower.Expired(kStart + 14s, 10), ElementsAre(1, 2));
}

TEST(Lessor, TheLongestTtlDoesNotWrap) {
  Lessor lessor(Fast());
  const Instant late = kNever - 1h;
  lessor.Promote(late, 0s);
  ASSERT_TRUE(lessor.Grant(1, kMaxTtlSeconds, late).ok());
  EXPECT_THAT(lessor.Expired(late + 30min, 10), IsEmpty());
  EXPECT_EQ(lessor.Renew(1, late + 30min).outcome, Lessor::Renewal::kRenewed);
  EXPECT_GT(lessor.TimeToLive(1, late)->remaining_seconds, 0);
  for (int i = 0; i < 10; ++i) lessor.AdvanceClock(INT64_MAX / 2);
  lessor.Promote(late, 0s);
  EXPECT_THAT(lessor.Expired(late, 10), ElementsAre(1));
  lessor.CheckInvariants();
}

TEST(Lessor, ListsTheLeaseFirstThatEndsFirst) {
  Lessor lessor;
  for (LeaseId id = 1; id <= 3; ++id) ASSERT_TRUE(lessor.Grant(id, 100 - 10 * id, kStart).ok());
  EXPECT_THAT(lessor.Leases(), ElementsAre(3, 2, 1));
  lessor.Promote(kStart, 0s);
  ASSERT_EQ(lessor.Renew(3, kStart + 60s).outcome, Lessor::Renewal::kRenewed);
  EXPECT_THAT(lessor.Leases(), ElementsAre(2, 1, 3));
}

TEST(Lessor, AnImageThatIsNoneIsRefused) {
  Lessor lessor;
  const auto import = [&](std::vector<LeaseImage> leases, int64_t clock_ms = 0) {
    return lessor.Import({.clock_ms = clock_ms, .leases = std::move(leases)}).ok();
  };
  EXPECT_TRUE(import({{-1, 5, 5000}, {1, 5, 0}}));
  EXPECT_TRUE(import({{1, 5, -100}}, 100));
  EXPECT_FALSE(import({{2, 5, 0}, {1, 5, 0}}));
  EXPECT_FALSE(import({{1, 5, 0}, {1, 5, 0}}));
  EXPECT_FALSE(import({{0, 5, 0}}));
  EXPECT_FALSE(import({{1, 0, 0}}));
  EXPECT_FALSE(import({{1, 5, 5001}}));
  EXPECT_FALSE(import({{1, 5, -1}}));
  EXPECT_FALSE(import({}, -1));
  EXPECT_EQ(lessor.size(), 1u) << "and nothing was changed by it";
}

}  // namespace
}  // namespace conclave::lease
