// DoubleBarrierPlan: what a member does next, from what it sees.
#include "conclave/coordination/double_barrier_plan.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using Entering = DoubleBarrierPlan::Entering;

KeyValue Waiter(const std::string& id, int64_t create, const std::string& members = "2") {
  return {.key = "b/waiters/" + id, .value = members, .create_revision = create};
}
KeyValue Ready(const std::string& ids, int64_t create) {
  return {.key = "b/ready", .value = ids, .create_revision = create, .mod_revision = create};
}

const DoubleBarrierPlan kPlan("b", 0xa, 2);  // we are "a"

TEST(DoubleBarrierPlanTest, WaitsThenOpensThenIsInside) {
  DoubleBarrierView view{.waiters = {Waiter("a", 5)}};
  EXPECT_EQ(kPlan.OnEntering(view), Entering::kWait);
  view.waiters.push_back(Waiter("b", 6));
  ASSERT_EQ(kPlan.OnEntering(view), Entering::kOpen);
  const TxnRequest open = kPlan.Open(view);
  // Only if both are still those we saw.
  EXPECT_EQ(open.conditions.size(), 3u);
  EXPECT_EQ(open.conditions[1], CreateRevision("b/waiters/a") == 5);
  EXPECT_EQ(open.conditions[2], CreateRevision("b/waiters/b") == 6);
  EXPECT_EQ(std::get<PutRequest>(open.success[0]).value, "a,b");
  view.ready = Ready("a,b", 7);
  EXPECT_EQ(kPlan.OnEntering(view), Entering::kInside);
}

TEST(DoubleBarrierPlanTest, OneTooManyWaitsForTheNextRound) {
  DoubleBarrierView view{.ready = Ready("b,c", 7),
                         .waiters = {Waiter("b", 4), Waiter("c", 5), Waiter("a", 6)}};
  EXPECT_EQ(kPlan.OnEntering(view), Entering::kRoundOn);
  // Listed, but by an earlier life of our key.
  view = {.ready = Ready("a,b", 7), .waiters = {Waiter("b", 4), Waiter("a", 9)}};
  EXPECT_EQ(kPlan.OnEntering(view), Entering::kRoundOn);
}

TEST(DoubleBarrierPlanTest, NoticesThatItsKeyIsGoneAndThatOthersCountDifferently) {
  EXPECT_EQ(kPlan.OnEntering({.waiters = {Waiter("b", 4)}}), Entering::kGone);
  EXPECT_EQ(kPlan.OnEntering({.waiters = {Waiter("b", 4, "3"), Waiter("a", 5)}}),
            Entering::kMismatch);
}

TEST(DoubleBarrierPlanTest, TheLostAreThoseWhoNeitherStayedNorLeft) {
  const DoubleBarrierView view{
      .ready = Ready("a,b,c", 7), .waiters = {Waiter("a", 1)}, .left = {"b/left/b"}};
  EXPECT_EQ(DoubleBarrierPlan::Lost(view), std::vector<std::string>{"c"});
  EXPECT_TRUE(DoubleBarrierPlan::Lost({}).empty());
  EXPECT_FALSE(DoubleBarrierPlan::RoundOver(view, 7));
  EXPECT_TRUE(DoubleBarrierPlan::RoundOver(view, 6));
  EXPECT_TRUE(DoubleBarrierPlan::RoundOver({}, 7));
}

TEST(DoubleBarrierPlanTest, TheEndOfARoundIsRecordedForThoseWhoSeeItLater) {
  const DoubleBarrierView over{.ready = Ready("a,b", 7), .left = {"b/left/a"}};
  const TxnRequest finish = kPlan.Finish(over);
  const std::string record = std::get<PutRequest>(finish.success[2]).value;
  EXPECT_EQ(record, "7 b");
  const DoubleBarrierView later{.last = KeyValue{.value = record}};
  EXPECT_EQ(DoubleBarrierPlan::LostIn(later, 7), std::vector<std::string>{"b"});
  EXPECT_FALSE(DoubleBarrierPlan::LostIn(later, 8).has_value());
  EXPECT_FALSE(DoubleBarrierPlan::LostIn({}, 7).has_value());
  for (const char* bad : {"", "7", "x y", "7 a b"}) {
    EXPECT_FALSE(DoubleBarrierPlan::LostIn({.last = KeyValue{.value = bad}}, 7).has_value());
  }
  EXPECT_EQ(DoubleBarrierPlan::LostIn({.last = KeyValue{.value = "7 "}}, 7),
            std::vector<std::string>{});
}

TEST(DoubleBarrierPlanTest, ThoseWhoLeaveWaitForDifferentOnes) {
  DoubleBarrierView view{.ready = Ready("a", 7)};
  for (int i = 0; i < 20; ++i) view.waiters.push_back(Waiter(absl::StrCat(absl::Hex(i)), i + 1));
  std::set<std::string> waited_for;
  for (LeaseId lease = 100; lease < 140; ++lease) {
    waited_for.insert(DoubleBarrierPlan("b", lease, 2).WaitFor(view));
  }
  EXPECT_GT(waited_for.size(), 5u);
}

}  // namespace
}  // namespace conclave
