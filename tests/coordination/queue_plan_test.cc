// QueuePlan: the order of keys is the order of service, and which item is free.
#include "conclave/coordination/queue_plan.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace conclave {
namespace {

// The items and marks as a look at them answers.
TxnResult Looked(const QueuePlan& plan, const std::vector<std::string>& items,
                 const std::vector<std::string>& taken, bool more = false) {
  RangeResult range{.more = more}, marks{.count = static_cast<int64_t>(taken.size())};
  for (const std::string& key : items) range.kvs.push_back({.key = key, .mod_revision = 1});
  for (const std::string& key : taken) marks.kvs.push_back({.key = plan.TakenKey(key)});
  return {.revision = 7, .succeeded = true, .results = {range, marks}};
}

TEST(QueuePlanTest, KeysSortByPriorityThenByTicket) {
  const QueuePlan plan("q");
  std::vector<std::string> keys = {plan.ItemKey(0, 5), plan.ItemKey(9999, 300), plan.ItemKey(7, 16),
                                   plan.ItemKey(7, 15), plan.ItemKey(0, int64_t{1} << 60)};
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(keys, (std::vector<std::string>{plan.ItemKey(9999, 300), plan.ItemKey(7, 15),
                                            plan.ItemKey(7, 16), plan.ItemKey(0, 5),
                                            plan.ItemKey(0, int64_t{1} << 60)}));
  EXPECT_EQ(plan.ItemKey(7, 16), "q/item/9992/0000000000000010");
  EXPECT_EQ(plan.IdOf(plan.ItemKey(7, 16)), "9992/0000000000000010");
  EXPECT_EQ(plan.TakenKey(plan.ItemKey(7, 16)), "q/item-taken/9992/0000000000000010");
  EXPECT_EQ(plan.PriorityOf(plan.ItemKey(7, 16)), 7);
  EXPECT_FALSE(plan.PriorityOf("q/item/x/1").has_value());
  EXPECT_FALSE(plan.PriorityOf("other/item/0001/1").has_value());
}

TEST(QueuePlanTest, OneRangeHoldsItemsAndMarksAndNothingElse) {
  const QueuePlan plan("q");
  const KeyRange range = plan.ItemsAndMarks();
  EXPECT_TRUE(range.Contains(plan.ItemKey(0, 1)));
  EXPECT_TRUE(range.Contains(plan.TakenKey(plan.ItemKey(0, 1))));
  EXPECT_FALSE(range.Contains("q/tail"));
  EXPECT_FALSE(range.Contains("q/turn/2a"));
  EXPECT_FALSE(range.Contains("q/items"));
}

TEST(QueuePlanTest, TheFirstFreeItemIsNext) {
  const QueuePlan plan("q");
  const std::string a = plan.ItemKey(0, 1), b = plan.ItemKey(0, 2), c = plan.ItemKey(0, 3);
  EXPECT_EQ(plan.NextOf(Looked(plan, {a, b, c}, {})).item.key, a);
  const QueuePlan::Next next = plan.NextOf(Looked(plan, {a, b, c}, {a, b}));
  EXPECT_TRUE(next.found);
  EXPECT_EQ(next.item.key, c);
  EXPECT_EQ(next.in_flight, 2);
  EXPECT_EQ(next.revision, 7);
  const QueuePlan::Next none = plan.NextOf(Looked(plan, {a}, {a}));
  EXPECT_FALSE(none.found);
  EXPECT_EQ(none.look_after, "");
  // All that was read is taken, and there is more.
  const QueuePlan::Next further = plan.NextOf(Looked(plan, {a, b}, {a, b}, true));
  EXPECT_FALSE(further.found);
  EXPECT_EQ(further.look_after, b);
  const TxnRequest look = plan.Look(further.look_after, 10);
  EXPECT_FALSE(std::get<RangeRequest>(look.success[0]).range.Contains(b));
  EXPECT_TRUE(std::get<RangeRequest>(look.success[0]).range.Contains(c));
}

TEST(QueuePlanTest, ATakeWhoseAnswerWasLostIsKnownByItsMark) {
  TxnResult taken{.succeeded = false};
  taken.results = {RangeResult{.kvs = {{.key = "k", .value = "mark-1", .lease = 7}}}};
  EXPECT_TRUE(QueuePlan::TookIt(taken, 7, "mark-1"));
  EXPECT_FALSE(QueuePlan::TookIt(taken, 7, "mark-2"));
  EXPECT_FALSE(QueuePlan::TookIt(taken, 8, "mark-1"));
  taken.results = {RangeResult{}};
  EXPECT_FALSE(QueuePlan::TookIt(taken, 7, "mark-1"));
}

}  // namespace
}  // namespace conclave
