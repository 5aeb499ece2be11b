// Who is a member, who is a candidate, and at what weight: through joins, failures, ejections,
// zones and slow starts.
#include "conclave/discovery/picking/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace conclave::picking {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RosterTest : public ::testing::Test {
 protected:
  static Instance Make(const std::string& address, const std::string& zone = "",
                       std::optional<int64_t> weight = std::nullopt) {
    return {.service = "s", .address = address, .zone = zone, .weight = weight};
  }
  static std::string Address(int i) { return "10.0.0." + std::to_string(i) + ":80"; }
  static std::vector<Instance> Fleet(int count) {
    std::vector<Instance> fleet;
    for (int i = 1; i <= count; ++i) fleet.push_back(Make(Address(i)));
    return fleet;
  }
  Roster::Change Set(Roster& roster, const std::vector<Instance>& instances) {
    std::vector<const Instance*> pointers;
    for (const Instance& instance : instances) pointers.push_back(&instance);
    return roster.SetInstances(pointers);
  }
  uint64_t Id(const Roster& roster, const std::string& address) {
    return roster.members().at(address).id;
  }
  void AllReady(Roster& roster) {
    for (const auto& [address, member] : roster.members()) {
      roster.SetState(member.id, BackendState::kReady, now_);
    }
  }
  std::vector<std::string> Chosen(Roster& roster) {
    std::vector<std::string> addresses;
    for (const auto& backend : roster.Choose(now_).backends)
      addresses.push_back(backend->address());
    return addresses;
  }
  double WeightOf(Roster& roster, const std::string& address) {
    for (const auto& backend : roster.Choose(now_).backends) {
      if (backend->address() == address) return backend->weight();
    }
    return -1;
  }

  Instant now_{seconds(1'000)};
};

TEST_F(RosterTest, OnlyServingInstancesWithGoodAddressesAreMembers) {
  Roster roster({});
  Instance draining = Make(Address(2));
  draining.state = InstanceState::kDraining;
  Instance down = Make(Address(3));
  down.state = InstanceState::kDown;
  const std::vector<Instance> instances = {Make(Address(1)),
                                           draining,
                                           down,
                                           Make("10.0.0.4"),
                                           Make("10.0.0.5:0"),
                                           Make("1.2.3:80"),
                                           Make("unix:/tmp/x"),
                                           Make("host:80"),
                                           Make("[::1]:80"),
                                           Make(Address(1)),
                                           Make("")};
  const Roster::Change change = Set(roster, instances);
  EXPECT_EQ(change.joined.size(), 3u);
  EXPECT_EQ(roster.unusable(), 5u);
  EXPECT_THAT(Chosen(roster), IsEmpty()) << "none is ready";
}

TEST_F(RosterTest, MembersThatStayKeepTheirIdentityWhateverElseChanges) {
  Roster roster({.by_weight = true});
  Set(roster, {Make(Address(1)), Make(Address(2))});
  AllReady(roster);
  const uint64_t id = Id(roster, Address(1));
  const auto load = roster.members().at(Address(1)).load;
  const Roster::Change change = Set(roster, {Make(Address(1), "z", 7), Make(Address(3))});
  EXPECT_EQ(change.joined.size(), 1u);
  EXPECT_EQ(change.left.size(), 1u);
  EXPECT_EQ(Id(roster, Address(1)), id);
  EXPECT_EQ(roster.members().at(Address(1)).load, load);
  EXPECT_EQ(WeightOf(roster, Address(1)), 7);
  EXPECT_EQ(roster.Choose(now_).backends[0]->instance().zone, "z");
  EXPECT_FALSE(roster.SetState(change.left[0], BackendState::kReady, now_)) << "a late event";
}

TEST_F(RosterTest, FailingIsStickyUntilReady) {
  Roster roster({});
  Set(roster, Fleet(1));
  const uint64_t id = Id(roster, Address(1));
  EXPECT_TRUE(roster.SetState(id, BackendState::kFailing, now_));
  EXPECT_FALSE(roster.SetState(id, BackendState::kConnecting, now_));
  EXPECT_EQ(roster.Find(id)->state, BackendState::kFailing);
  EXPECT_TRUE(roster.SetState(id, BackendState::kReady, now_));
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(1)));
  EXPECT_TRUE(roster.SetState(id, BackendState::kConnecting, now_)) << "its connection was closed";
  EXPECT_THAT(Chosen(roster), IsEmpty());
}

TEST_F(RosterTest, WeightsCountIfThePolicyGoesByThem) {
  const std::vector<Instance> fleet = {Make(Address(1), "", 5), Make(Address(2), "", 0),
                                       Make(Address(3)), Make(Address(4), "", -3),
                                       Make(Address(5), "", INT64_MAX)};
  Roster weighted({.by_weight = true});
  Set(weighted, fleet);
  AllReady(weighted);
  EXPECT_EQ(WeightOf(weighted, Address(1)), 5);
  EXPECT_EQ(WeightOf(weighted, Address(2)), 0);
  EXPECT_EQ(WeightOf(weighted, Address(3)), 100);
  EXPECT_EQ(WeightOf(weighted, Address(4)), 0);
  EXPECT_EQ(WeightOf(weighted, Address(5)), 1e6);
  Roster plain({});
  Set(plain, fleet);
  AllReady(plain);
  EXPECT_EQ(WeightOf(plain, Address(1)), 1);
}

TEST_F(RosterTest, LaterMembersAndReturningOnesStartSlowly) {
  Roster roster({.by_weight = true, .slow_start = seconds(20)});
  Set(roster, Fleet(1));
  AllReady(roster);
  EXPECT_EQ(WeightOf(roster, Address(1)), 100) << "not the first set";
  EXPECT_EQ(roster.NextDue(), kNever);

  Set(roster, Fleet(2));
  AllReady(roster);
  EXPECT_EQ(WeightOf(roster, Address(2)), 10);
  EXPECT_EQ(roster.NextDue(), now_ + seconds(1));
  double before = 10;
  for (int second = 1; second <= 20; ++second) {
    now_ += seconds(1);
    EXPECT_TRUE(roster.Advance(now_));
    const double weight = WeightOf(roster, Address(2));
    EXPECT_GE(weight, before);
    before = weight;
    if (second == 10) {
      EXPECT_EQ(weight, 50);
    }
  }
  EXPECT_EQ(before, 100);
  EXPECT_EQ(roster.NextDue(), kNever);
  EXPECT_FALSE(roster.Advance(now_ + seconds(5)));

  // A connection that is closed and opened again is no start; one that could not be opened is.
  const uint64_t id = Id(roster, Address(1));
  roster.SetState(id, BackendState::kConnecting, now_);
  roster.SetState(id, BackendState::kReady, now_);
  EXPECT_EQ(WeightOf(roster, Address(1)), 100);
  roster.SetState(id, BackendState::kFailing, now_);
  roster.SetState(id, BackendState::kReady, now_);
  EXPECT_EQ(WeightOf(roster, Address(1)), 10);
}

TEST_F(RosterTest, EjectionsAreBoundedAndGrow) {
  const Outlier outlier{.base_ejection = absl::Seconds(30),
                        .max_ejection = absl::Seconds(70),
                        .max_ejection_percent = 50};
  Roster roster({.outlier = outlier, .panic_percent = 0});
  Set(roster, Fleet(4));
  AllReady(roster);
  EXPECT_TRUE(roster.Eject(Id(roster, Address(1)), now_));
  EXPECT_FALSE(roster.Eject(Id(roster, Address(1)), now_)) << "it is out already";
  EXPECT_TRUE(roster.Eject(Id(roster, Address(2)), now_));
  EXPECT_FALSE(roster.Eject(Id(roster, Address(3)), now_)) << "that would be more than half";
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(3), Address(4)));
  EXPECT_EQ(roster.NextDue(), now_ + seconds(30));
  EXPECT_FALSE(roster.Advance(now_ + seconds(29)));
  EXPECT_TRUE(roster.Advance(now_ + seconds(30)));
  EXPECT_EQ(Chosen(roster).size(), 4u);
  // The next one lasts longer, up to the maximum.
  now_ += seconds(31);
  for (const int lasts : {60, 70, 70}) {
    EXPECT_TRUE(roster.Eject(Id(roster, Address(1)), now_));
    EXPECT_EQ(roster.members().at(Address(1)).ejection.until(), now_ + seconds(lasts));
    now_ += seconds(lasts);
    EXPECT_TRUE(roster.Advance(now_));
  }
  // Standing for long enough, it is forgiven.
  now_ += seconds(500);
  roster.Advance(now_);
  EXPECT_TRUE(roster.Eject(Id(roster, Address(1)), now_));
  EXPECT_EQ(roster.members().at(Address(1)).ejection.until(), now_ + seconds(30));
}

TEST_F(RosterTest, TheOnlyOneIsNeverEjectedAndZeroPercentEjectsNone) {
  Roster alone({.outlier = Outlier{}});
  Set(alone, Fleet(1));
  AllReady(alone);
  EXPECT_FALSE(alone.Eject(Id(alone, Address(1)), now_));
  Roster small({.outlier = Outlier{.max_ejection_percent = 10}});
  Set(small, Fleet(3));
  AllReady(small);
  EXPECT_TRUE(small.Eject(Id(small, Address(1)), now_)) << "one may always be";
  EXPECT_FALSE(small.Eject(Id(small, Address(2)), now_));
  Roster none({.outlier = Outlier{.max_ejection_percent = 0}});
  Set(none, Fleet(3));
  AllReady(none);
  EXPECT_FALSE(none.Eject(Id(none, Address(1)), now_));
  Roster off({});
  Set(off, Fleet(3));
  AllReady(off);
  EXPECT_FALSE(off.Eject(Id(off, Address(1)), now_));
}

TEST_F(RosterTest, WhenTooFewAreLeftEjectionsAreIgnored) {
  Roster roster({.outlier = Outlier{.max_ejection_percent = 50}, .panic_percent = 50});
  Set(roster, Fleet(6));
  AllReady(roster);
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(roster.Eject(Id(roster, Address(i)), now_));
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(4), Address(5), Address(6)));
  EXPECT_FALSE(roster.Choose(now_).panic);
  roster.SetState(Id(roster, Address(4)), BackendState::kFailing, now_);
  EXPECT_TRUE(roster.Choose(now_).panic);
  EXPECT_EQ(Chosen(roster).size(), 5u);
  for (int i = 5; i <= 6; ++i) {
    roster.SetState(Id(roster, Address(i)), BackendState::kFailing, now_);
  }
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(1), Address(2), Address(3)))
      << "ejected ones are better than none";
}

TEST_F(RosterTest, CallsStayInTheZoneWhileEnoughOfItIsReady) {
  Roster roster({.prefer_zone = "a", .zone_ready_percent = 50});
  Set(roster,
      {Make(Address(1), "a"), Make(Address(2), "a"), Make(Address(3), "b"), Make(Address(4))});
  AllReady(roster);
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(1), Address(2)));
  roster.SetState(Id(roster, Address(1)), BackendState::kFailing, now_);
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(2))) << "half is enough";
  roster.SetState(Id(roster, Address(2)), BackendState::kFailing, now_);
  EXPECT_THAT(Chosen(roster), ElementsAre(Address(3), Address(4)));
  Roster strict({.prefer_zone = "a", .zone_ready_percent = 100});
  Set(strict, {Make(Address(1), "a"), Make(Address(2), "a"), Make(Address(3), "b")});
  AllReady(strict);
  strict.SetState(Id(strict, Address(1)), BackendState::kFailing, now_);
  EXPECT_THAT(Chosen(strict), ElementsAre(Address(2), Address(3))) << "spills over, keeps its own";
}

TEST_F(RosterTest, ASubsetIsTakenPerTier) {
  std::vector<Instance> fleet;
  for (int i = 1; i <= 40; ++i) fleet.push_back(Make(Address(i), i % 2 == 0 ? "a" : "b"));
  Roster plain({.subset = 5, .subset_key = "me"});
  EXPECT_EQ(Set(plain, fleet).joined.size(), 5u);
  Roster zoned({.prefer_zone = "a", .subset = 5, .subset_key = "me"});
  EXPECT_EQ(Set(zoned, fleet).joined.size(), 10u);
  AllReady(zoned);
  for (const auto& backend : zoned.Choose(now_).backends) EXPECT_EQ(backend->instance().zone, "a");
  // One that leaves is replaced, the others stay.
  const std::string gone = plain.members().begin()->first;
  std::erase_if(fleet, [&gone](const Instance& instance) { return instance.address == gone; });
  const Roster::Change change = Set(plain, fleet);
  EXPECT_EQ(change.left.size(), 1u);
  EXPECT_EQ(change.joined.size(), 1u);
}

TEST_F(RosterTest, TheRingIsOfAllMembersAndChangesOnlyWithThem) {
  Roster roster({.by_weight = true, .ring = true});
  Set(roster, Fleet(3));
  const auto ring = roster.ring();
  ASSERT_NE(ring, nullptr);
  roster.SetState(Id(roster, Address(2)), BackendState::kReady, now_);
  EXPECT_THAT(roster.Choose(now_).ring_index, ElementsAre(1u));
  Set(roster, Fleet(3));
  EXPECT_EQ(roster.ring(), ring);
  Set(roster, Fleet(4));
  EXPECT_NE(roster.ring(), ring);
}

}  // namespace
}  // namespace conclave::picking
