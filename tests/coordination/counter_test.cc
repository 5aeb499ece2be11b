// Counter and IdRanges against real servers.
#include "conclave/coordination/counter.h"

#include <limits>
#include <set>
#include <vector>

#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::InThread;
using testing::ServerName;
using testing::Soon;

class CounterTest : public testing::RecipeTest {};

TEST_P(CounterTest, CountsFromNothingSetsAndCompares) {
  Counter counter(client(), name_);
  EXPECT_EQ(*counter.Get(), 0);
  EXPECT_EQ(*counter.Add(5), 5);
  EXPECT_EQ(*counter.Add(-7), -2);
  EXPECT_EQ(*counter.Get(), -2);
  EXPECT_FALSE(*counter.CompareAndSet(5, 9));
  EXPECT_TRUE(*counter.CompareAndSet(-2, 9));
  EXPECT_EQ(*counter.Get(), 9);
  ASSERT_TRUE(counter.Set(std::numeric_limits<int64_t>::max()).ok());
  EXPECT_EQ(counter.Add(1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(*counter.Get(), std::numeric_limits<int64_t>::max());
}

TEST_P(CounterTest, NoAdditionIsLostAmongMany) {
  constexpr int kThreads = 4, kEach = 25;
  std::vector<std::future<int>> adders;
  for (int i = 0; i < kThreads; ++i) {
    adders.push_back(InThread([&] {
      Counter counter(client(), name_);
      int added = 0;
      for (int n = 0; n < kEach; ++n) added += counter.Add(1, Soon()).ok() ? 1 : 0;
      return added;
    }));
  }
  int added = 0;
  for (auto& adder : adders) added += adder.get();
  EXPECT_EQ(added, kThreads * kEach);
  EXPECT_EQ(*Counter(client(), name_).Get(), kThreads * kEach);
}

TEST_P(CounterTest, AValueThatIsNoNumberIsSaidSo) {
  for (const char* bad : {"", "x", "1 ", " 1", "1.5", "0x10", "9223372036854775808", "\xff"}) {
    ASSERT_TRUE(client().Put(name_, bad).ok());
    Counter counter(client(), name_);
    EXPECT_EQ(counter.Get().status().code(), absl::StatusCode::kFailedPrecondition) << bad;
    EXPECT_EQ(counter.Add(1).status().code(), absl::StatusCode::kFailedPrecondition) << bad;
  }
  EXPECT_EQ(Counter(client(), "").Add(1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(CounterTest, IdsAreUniqueAndGrowAndAnEndLosesAtMostABlock) {
  constexpr int kThreads = 3, kEach = 40, kBlock = 16;
  std::vector<std::future<std::vector<int64_t>>> takers;
  for (int i = 0; i < kThreads; ++i) {
    takers.push_back(InThread([&] {
      IdRanges ids(client(), name_, {.block = kBlock, .first = 100});
      std::vector<int64_t> mine;
      for (int n = 0; n < kEach; ++n) {
        auto id = ids.Next(Soon());
        if (id.ok()) mine.push_back(*id);
      }
      return mine;
    }));
  }
  std::set<int64_t> all;
  for (auto& taker : takers) {
    const std::vector<int64_t> mine = taker.get();
    EXPECT_EQ(mine.size(), static_cast<size_t>(kEach));
    EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
    all.insert(mine.begin(), mine.end());
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(kThreads * kEach));
  EXPECT_EQ(*all.begin(), 100);
  EXPECT_LT(*all.rbegin(), 100 + kThreads * (kEach + kBlock));
  IdRanges after(client(), name_, {.block = kBlock, .first = 100});
  auto range = after.Allocate(3);
  ASSERT_TRUE(range.ok());
  EXPECT_GT(range->begin, *all.rbegin());
  EXPECT_EQ(range->end - range->begin, 3);
  EXPECT_EQ(after.Allocate(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(IdRanges(client(), name_, {.block = -1}).Next().status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Servers, CounterTest, ::testing::ValuesIn(AllServers()), ServerName);

class CounterFaultTest : public ::testing::TestWithParam<testing::ServerUnderTest> {};

TEST_P(CounterFaultTest, ALostAnswerIsToldAndNotRepeated) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Counter counter(*client, "c");
  ASSERT_TRUE(counter.Set(10).ok());
  cluster->Pause(0);
  // The read before the write cannot be answered either: nothing was written,
  // for certain.
  auto added = counter.Add(1, {.timeout = absl::Milliseconds(300)});
  EXPECT_FALSE(added.ok());
  EXPECT_FALSE(IsOutcomeUnknown(added.status()));
  // A write of unknown outcome says so.
  const absl::Status set = counter.Set(11, {.timeout = absl::Milliseconds(300)});
  EXPECT_TRUE(IsOutcomeUnknown(set)) << set;
  cluster->Resume(0);
  // It happened, or it did not; from here on all is certain again.
  auto now = counter.Get({.timeout = absl::Seconds(20)});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_TRUE(*now == 10 || *now == 11) << *now;
  auto next = counter.Add(1, {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_GT(*next, 10);
}

INSTANTIATE_TEST_SUITE_P(Servers, CounterFaultTest, ::testing::ValuesIn(testing::SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
