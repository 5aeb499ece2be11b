// Three lessors that apply the same commands, one of them the primary at a time, against the
// promises of a lease: never ended early, never long after its TTL, the same replicated state
// everywhere.

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <set>

#include "conclave/base/prng.h"
#include "conclave/server/lease/lessor.h"

namespace conclave::lease {
namespace {

using namespace std::chrono_literals;

struct ModelLease {
  int64_t ttl_seconds;
  Instant last_renewal;  // granted, or renewed and acknowledged
  std::set<std::string> keys;
};

class Cluster {
 public:
  Cluster(uint64_t seed, bool by_clock) : prng_(seed), by_clock_(by_clock) {
    for (auto& member : members_) member = std::make_unique<Lessor>(options_);
    Elect();
  }

  void Step() {
    now_ += std::chrono::milliseconds(prng_.Below(80));
    if (by_clock_) {
      // One command a second, for everything that has passed since the last.
      const int64_t passed = std::chrono::floor<std::chrono::milliseconds>(now_ - clock_).count();
      if (passed >= 1000) {
        clock_ += std::chrono::milliseconds(passed);
        Apply([&](Lessor& lessor) { lessor.AdvanceClock(passed); });
      }
    } else {
      for (const LeaseImage& due : Primary().DueCheckpoints(now_, 100)) {
        Apply([&](Lessor& lessor) {
          EXPECT_TRUE(lessor.Checkpoint(due.id, due.remaining_ms, now_));
        });
      }
    }
    for (const LeaseId id : Primary().Expired(now_, prng_.Between(1, 10))) Expire(id);
    switch (prng_.Below(12)) {
      case 0:
      case 1:
        return Grant();
      case 2:
      case 3:
      case 4:
        return Renew();
      case 5:
        return Attach();
      case 6:
        return Revoke();
      case 7:
        if (prng_.Chance(1, 20)) Elect();
        return;
      case 8:
        if (prng_.Chance(1, 20)) Reinstall();
        return;
      default:
        return;
    }
  }

  void Compare() {
    for (const auto& member : members_) {
      member->CheckInvariants();
      ASSERT_EQ(member->digest(), Primary().digest());
      ASSERT_EQ(member->size(), model_.size());
      ASSERT_EQ(member->Export(), Primary().Export());
      for (const auto& [id, lease] : model_) {
        ASSERT_EQ(member->Keys(id), std::vector<std::string>(lease.keys.begin(), lease.keys.end()));
      }
    }
    // None may have been forgotten: what nobody renewed is gone by now, but for what every change
    // of leader since can have cost.
    for (const auto& [id, lease] : model_) {
      const Duration ttl = std::chrono::seconds(lease.ttl_seconds);
      const Duration lag = by_clock_ ? Duration(1080ms) : std::max<Duration>(1s, ttl / 20) + 80ms;
      const int changes = static_cast<int>(elections_.size()) -
                          static_cast<int>(std::distance(
                              elections_.begin(), elections_.lower_bound(lease.last_renewal)));
      ASSERT_LE(now_, lease.last_renewal + ttl + changes * (lag + extend_) + 3s) << id;
    }
  }

 private:
  Lessor& Primary() { return *members_[primary_]; }
  template <typename Command>
  void Apply(Command&& command) {
    for (auto& member : members_) command(*member);
  }
  LeaseId AnyLease() {
    if (model_.empty() || prng_.Chance(1, 20)) return 1000000;
    auto lease = model_.lower_bound(prng_.Between(1, next_id_));
    if (lease == model_.end()) lease = model_.begin();
    return lease->first;
  }

  void Elect() {
    Primary().Demote();
    primary_ = prng_.Below(members_.size());
    now_ += std::chrono::milliseconds(prng_.Below(300));
    clock_ = now_;  // the time without a leader does not count
    Primary().Promote(now_, extend_);
    elections_.insert(now_);
  }

  void Expire(LeaseId id) {
    const auto lease = model_.find(id);
    ASSERT_NE(lease, model_.end());
    ASSERT_GE(now_, lease->second.last_renewal + std::chrono::seconds(lease->second.ttl_seconds))
        << "lease " << id << " ended early";
    if (prng_.Chance(1, 10)) return;  // the revocation is lost
    RevokeEverywhere(id);
  }

  void RevokeEverywhere(LeaseId id) {
    const ModelLease lease = model_.at(id);
    model_.erase(id);
    Apply([&](Lessor& lessor) {
      ASSERT_EQ(*lessor.Revoke(id), std::vector<std::string>(lease.keys.begin(), lease.keys.end()));
    });
  }

  void Grant() {
    if (model_.size() > 60) return;
    const LeaseId id = next_id_++;
    const int64_t ttl = prng_.Between(1, 30);
    Apply([&](Lessor& lessor) { ASSERT_TRUE(lessor.Grant(id, ttl, now_).ok()); });
    model_[id] = {.ttl_seconds = ttl, .last_renewal = now_, .keys = {}};
  }

  void Renew() {
    const LeaseId id = AnyLease();
    const auto lease = model_.find(id);
    const Instant sent = now_;
    const Lessor::RenewResult result = Primary().Renew(id, now_);
    ASSERT_EQ(result.outcome == Lessor::Renewal::kNotFound, lease == model_.end());
    if (result.outcome != Lessor::Renewal::kRenewed) return;
    if (result.must_replicate) {
      now_ += std::chrono::milliseconds(prng_.Below(20));
      // The leader may fall before the command is committed; then nothing was acknowledged.
      if (prng_.Chance(1, 20)) return Elect();
      Apply([&](Lessor& lessor) {
        ASSERT_TRUE(lessor.Checkpoint(id, lease->second.ttl_seconds * 1000, now_));
      });
    }
    lease->second.last_renewal = sent;
  }

  void Attach() {
    const LeaseId id = AnyLease();
    const std::string key = "key" + std::to_string(prng_.Below(30));
    const auto lease = model_.find(id);
    const bool attach = prng_.Chance(2, 3);
    Apply([&](Lessor& lessor) {
      if (attach) {
        ASSERT_EQ(lessor.Attach(key, id).ok(), lease != model_.end());
      } else {
        lessor.Detach(key, id);
      }
    });
    if (lease == model_.end()) return;
    if (attach) {
      lease->second.keys.insert(key);
    } else {
      lease->second.keys.erase(key);
    }
  }

  void Revoke() {
    const LeaseId id = AnyLease();
    if (model_.contains(id)) return RevokeEverywhere(id);
    Apply([&](Lessor& lessor) { ASSERT_EQ(lessor.Revoke(id).status(), LeaseNotFoundError()); });
  }

  // A follower is replaced by a snapshot of the primary.
  void Reinstall() {
    const size_t index = (primary_ + 1) % members_.size();
    members_[index] = std::make_unique<Lessor>(options_);
    ASSERT_TRUE(members_[index]->Import(Primary().Export()).ok());
    for (const auto& [id, lease] : model_) {
      for (const std::string& key : lease.keys) ASSERT_TRUE(members_[index]->Attach(key, id).ok());
    }
  }

  const LessorOptions options_{.checkpoint_lag_min = 1s, .expired_retry = 500ms};
  Prng prng_;
  const bool by_clock_;
  // With the clock, at least its longest step: what is granted in between counts from its
  // beginning.
  const Duration extend_ = by_clock_ ? 1100ms : 200ms;
  Instant now_{1000s};
  Instant clock_{1000s};
  std::array<std::unique_ptr<Lessor>, 3> members_;
  size_t primary_ = 0;
  std::set<Instant> elections_;
  std::map<LeaseId, ModelLease> model_;
  LeaseId next_id_ = 1;
};

class LessorModel : public testing::TestWithParam<bool> {};

TEST_P(LessorModel, LeasesEndWhenTheyShouldThroughChangesOfLeader) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Cluster cluster(seed, GetParam());
    for (int i = 0; i < 3000 && !HasFatalFailure(); ++i) {
      cluster.Step();
      if (i % 50 == 0) cluster.Compare();
    }
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(, LessorModel, testing::Bool(),
                         [](const auto& info) { return info.param ? "ByClock" : "ByCheckpoints"; });

}  // namespace
}  // namespace conclave::lease
