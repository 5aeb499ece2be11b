// The policies, on tables without any gRPC.
#include "conclave/discovery/picking/pick_table.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "conclave/base/prng.h"

namespace conclave::picking {
namespace {

class PickTableTest : public ::testing::Test {
 protected:
  // A table of ready backends of these weights.
  PickTable Make(const std::vector<double>& weights) {
    Roster::Candidates candidates;
    std::vector<HashRing::Member> members;
    for (size_t i = 0; i < weights.size(); ++i) {
      loads_.push_back(std::make_shared<BackendLoad>());
      const std::string address = "10.0.0." + std::to_string(i) + ":80";
      candidates.backends.push_back(
          std::make_shared<Backend>(Instance{.address = address}, weights[i], loads_.back()));
      candidates.ring_index.push_back(static_cast<uint32_t>(i));
      members.push_back({.name = address, .weight = weights[i]});
    }
    return PickTable(&policy_, &turns_, std::move(candidates),
                     std::make_shared<const HashRing>(members));
  }
  PickArgs Call() { return {.method = "/s/M", .random = prng_.Next()}; }

  Policy policy_ = RoundRobin{};
  TurnCounter turns_;
  Prng prng_{3};
  std::vector<std::shared_ptr<BackendLoad>> loads_;
};

TEST_F(PickTableTest, AnEmptyTableHasNothingToPick) {
  const std::vector<Policy> policies = {RoundRobin{}, WeightedRoundRobin{}, LeastRequest{},
                                        RingHash{.header = "x"}};
  for (const Policy& policy : policies) {
    policy_ = policy;
    EXPECT_EQ(Make({}).Pick(Call()), PickTable::kNone);
  }
}

TEST_F(PickTableTest, RoundRobinGoesRoundAndOnAcrossTables) {
  const PickTable table = Make({1, 1, 1});
  for (uint32_t i = 0; i < 7; ++i) EXPECT_EQ(table.Pick(Call()), i % 3);
  EXPECT_EQ(Make({1, 1, 1}).Pick(Call()), 1u) << "a new table goes on where the old one was";
}

TEST_F(PickTableTest, WeightedRoundRobinHasItsShares) {
  policy_ = WeightedRoundRobin{};
  const PickTable table = Make({500, 100, 100, 0});
  std::array<int, 4> picks{};
  for (int i = 0; i < 7'000; ++i) ++picks[table.Pick(Call())];
  EXPECT_EQ(picks, (std::array<int, 4>{5'000, 1'000, 1'000, 0}));
}

TEST_F(PickTableTest, LeastRequestAvoidsTheBusy) {
  policy_ = LeastRequest{};
  const PickTable table = Make(std::vector<double>(10, 1));
  loads_[4]->in_flight = 100;
  std::array<int, 10> picks{};
  for (int i = 0; i < 10'000; ++i) ++picks[table.Pick(Call())];
  EXPECT_LT(picks[4], 150) << "only where it is drawn twice";
  for (int i = 0; i < 10; ++i) {
    if (i != 4) {
      EXPECT_NEAR(picks[i], 1'111, 250);
    }
  }
}

TEST_F(PickTableTest, LeastRequestGoesByWeightWhenIdleAndLevelsLoadPerWeight) {
  policy_ = LeastRequest{};
  const PickTable table = Make({300, 100});
  std::array<int, 2> picks{};
  for (int i = 0; i < 10'000; ++i) ++picks[table.Pick(Call())];
  EXPECT_NEAR(picks[0], 7'500, 300);
  // 3 calls at weight 300 are as many as 1 at weight 100.
  loads_[0]->in_flight = 30;
  loads_[1]->in_flight = 20;
  picks = {};
  for (int i = 0; i < 10'000; ++i) ++picks[table.Pick(Call())];
  EXPECT_GT(picks[0], 9'300);
}

// Calls of one length at a constant rate: the longest queue, against drawing at random.
TEST_F(PickTableTest, TwoChoicesKeepTheLongestQueueShort) {
  constexpr int kBackends = 100;
  constexpr int kCalls = 100'000;
  std::map<std::string, int64_t> longest;
  for (const std::string kind : {"least", "random"}) {
    policy_ = LeastRequest{};
    loads_.clear();
    const PickTable table = Make(std::vector<double>(kBackends, 1));
    std::vector<uint32_t> under_way;
    for (int i = 0; i < kCalls; ++i) {
      const uint32_t picked =
          kind == "least" ? table.Pick(Call()) : static_cast<uint32_t>(prng_.Below(kBackends));
      ++loads_[picked]->in_flight;
      longest[kind] = std::max(longest[kind], loads_[picked]->in_flight.load());
      under_way.push_back(picked);
      if (under_way.size() > kBackends) {  // a random one ends
        const size_t ends = prng_.Below(under_way.size());
        --loads_[under_way[ends]]->in_flight;
        under_way[ends] = under_way.back();
        under_way.pop_back();
      }
    }
  }
  EXPECT_LE(longest["least"], 5);
  EXPECT_GE(longest["random"], 6);
}

TEST_F(PickTableTest, RingHashKeepsKeysTogether) {
  policy_ = RingHash{.header = "x-user"};
  const PickTable table = Make(std::vector<double>(10, 100));
  std::set<uint32_t> used;
  for (int user = 0; user < 200; ++user) {
    const std::multimap<std::string, std::string> metadata = {{"x-user", std::to_string(user)}};
    PickArgs args = Call();
    args.metadata = &metadata;
    const uint32_t home = table.Pick(args);
    used.insert(home);
    for (int i = 0; i < 5; ++i) {
      args.random = prng_.Next();
      EXPECT_EQ(table.Pick(args), home);
    }
    const std::array<uint32_t, 1> broken = {home};
    EXPECT_NE(table.Pick(args, broken), home);
  }
  EXPECT_EQ(used.size(), 10u);
  used.clear();
  for (int i = 0; i < 200; ++i) used.insert(table.Pick(Call()));
  EXPECT_EQ(used.size(), 10u) << "calls without a key are spread";
}

TEST_F(PickTableTest, RingHashTakesAKeyFunction) {
  policy_ = RingHash{.key = [](const PickArgs& args) { return std::string(args.method); }};
  const PickTable table = Make(std::vector<double>(10, 100));
  std::set<uint32_t> used;
  for (int i = 0; i < 50; ++i) used.insert(table.Pick(Call()));
  EXPECT_EQ(used.size(), 1u);
}

class LastOne final : public Picker {
 public:
  const Backend* Pick(const PickArgs& args, std::span<const Backend* const> ready) override {
    if (args.method == "/s/None") return nullptr;
    if (args.method == "/s/Foreign") return &foreign_;
    return ready.back();
  }

 private:
  Backend foreign_{Instance{}, 1, std::make_shared<BackendLoad>()};
};

TEST_F(PickTableTest, AsksTheApplicationsPicker) {
  policy_ = std::make_shared<LastOne>();
  const PickTable table = Make({1, 1, 1});
  EXPECT_EQ(table.Pick(Call()), 2u);
  EXPECT_EQ(table.Pick({.method = "/s/None"}), PickTable::kNone);
  EXPECT_EQ(table.Pick({.method = "/s/Foreign"}), PickTable::kNone);
  EXPECT_FALSE(table.may_pass_over());
}

TEST(PolicyTest, BadOptionsAreRefused) {
  const auto ok = [](const Policy& policy) { return ValidatePolicy(policy).ok(); };
  EXPECT_TRUE(ok(RoundRobin{}));
  EXPECT_TRUE(ok(LeastRequest{.choices = 16}));
  EXPECT_FALSE(ok(LeastRequest{.choices = 1}));
  EXPECT_FALSE(ok(LeastRequest{.choices = 17}));
  EXPECT_FALSE(ok(RingHash{}));
  EXPECT_TRUE(ok(RingHash{.header = "x-user"}));
  EXPECT_FALSE(ok(RingHash{.header = "X-User"}));
  EXPECT_FALSE(ok(RingHash{.header = "x user"}));
  EXPECT_FALSE(ok(RingHash{.header = "x", .key = [](const PickArgs&) { return ""; }}));
  EXPECT_FALSE(ok(std::shared_ptr<Picker>()));
  EXPECT_TRUE(ValidateOutlier({}).ok());
  EXPECT_FALSE(ValidateOutlier({.consecutive_failures = 0}).ok());
  EXPECT_FALSE(ValidateOutlier({.base_ejection = absl::ZeroDuration()}).ok());
  EXPECT_FALSE(ValidateOutlier({.base_ejection = absl::Minutes(6)}).ok());
  EXPECT_FALSE(ValidateOutlier({.max_ejection = absl::InfiniteDuration()}).ok());
  EXPECT_FALSE(ValidateOutlier({.max_ejection_percent = 101}).ok());
}

}  // namespace
}  // namespace conclave::picking
