// Queue against real servers.
#include "conclave/coordination/queue.h"

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "conclave/tests/coordination/recipe_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::AMoment;
using testing::InThread;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class QueueTest : public testing::RecipeTest {
 protected:
  // The values of the next n items, popped.
  std::vector<std::string> Pop(Queue& queue, int n) {
    std::vector<std::string> values;
    for (int i = 0; i < n; ++i) {
      auto item = queue.TryPop(Soon());
      EXPECT_TRUE(item.ok()) << item.status();
      values.push_back(item.ok() && item->has_value() ? (*item)->value : "-");
    }
    return values;
  }
};

using Strings = std::vector<std::string>;

TEST_P(QueueTest, FirstComeFirstServedAndTheHigherPriorityBefore) {
  Session session = NewSession();
  Queue queue(session, name_);
  for (const char* value : {"a", "b", "c"}) ASSERT_TRUE(queue.Push(value).ok());
  ASSERT_TRUE(queue.Push("urgent", {.priority = 10}).ok());
  ASSERT_TRUE(queue.Push("soon", {.priority = 5}).ok());
  ASSERT_TRUE(queue.Push("soon too", {.priority = 5}).ok());
  EXPECT_EQ(*queue.Size(), 6);
  EXPECT_EQ(Pop(queue, 7), (Strings{"urgent", "soon", "soon too", "a", "b", "c", "-"}));
  EXPECT_EQ(*queue.Size(), 0);
}

TEST_P(QueueTest, WhoWaitsGetsWhatComes) {
  Session session = NewSession();
  Queue queue(session, name_);
  EXPECT_EQ(queue.Pop(AMoment()).status().code(), absl::StatusCode::kDeadlineExceeded);
  std::stop_source stop;
  auto stopped = InThread([&] { return queue.Pop({.stop = stop.get_token()}).status(); });
  stop.request_stop();
  EXPECT_EQ(stopped.get().code(), absl::StatusCode::kCancelled);
  auto waiting = InThread([&] { return queue.Pop(Soon()); });
  ASSERT_TRUE(WaitFor([&] { return Count(name_ + "/turn/") == 1; }));
  auto id = queue.Push("late", {.priority = 3});
  ASSERT_TRUE(id.ok());
  auto item = waiting.get();
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_EQ(item->value, "late");
  EXPECT_EQ(item->id, *id);
  EXPECT_EQ(item->priority, 3);
  EXPECT_TRUE(WaitFor([&] { return Count(name_ + "/turn/") == 0; }));
}

TEST_P(QueueTest, ThoseWhoWaitAreServedInTheOrderOfTheirComing) {
  constexpr int kWaiting = 3;
  std::vector<Session> sessions;
  std::vector<std::future<absl::StatusOr<QueueItem>>> waiting;
  for (int i = 0; i < kWaiting; ++i) sessions.push_back(NewSession());
  for (int i = 0; i < kWaiting; ++i) {
    waiting.push_back(InThread([&, i] { return Queue(sessions[i], name_).Pop(Soon()); }));
    ASSERT_TRUE(WaitFor([&] { return Count(name_ + "/turn/") == i + 1; }));
  }
  Session session = NewSession();
  Queue queue(session, name_);
  for (int i = 0; i < kWaiting; ++i) {
    ASSERT_TRUE(queue.Push(absl::StrCat(i)).ok());
    auto item = waiting[i].get();
    ASSERT_TRUE(item.ok()) << item.status();
    EXPECT_EQ(item->value, absl::StrCat(i));
  }
}

TEST_P(QueueTest, EachItemGoesToOne) {
  constexpr int kItems = 60, kTakers = 4;
  Session session = NewSession();
  Queue queue(session, name_);
  std::mutex mutex;
  std::map<std::string, int> times;
  std::atomic<int> got = 0;
  std::stop_source done;
  std::vector<std::future<void>> takers;
  for (int i = 0; i < kTakers; ++i) {
    takers.push_back(InThread([&, i] {
      Session mine = NewSession();
      Queue from(mine, name_);
      while (!done.stop_requested()) {
        std::string value;
        if (i % 2 == 0) {
          auto item = from.Pop({.stop = done.get_token()});
          if (!item.ok()) continue;
          value = item->value;
        } else {
          auto item = from.Take({.stop = done.get_token()});
          if (!item.ok() || !item->Ack().ok()) continue;
          value = item->value();
        }
        std::lock_guard lock(mutex);
        ++times[value];
        if (++got == kItems) done.request_stop();
      }
    }));
  }
  for (int i = 0; i < kItems; ++i) ASSERT_TRUE(queue.Push(absl::StrCat(i)).ok());
  EXPECT_TRUE(WaitFor([&] { return got == kItems; }, absl::Seconds(60)));
  done.request_stop();
  for (auto& taker : takers) taker.get();
  EXPECT_EQ(times.size(), static_cast<size_t>(kItems));
  for (const auto& [value, count] : times) EXPECT_EQ(count, 1) << value;
  EXPECT_EQ(Count(name_ + "/item"), 0);
}

TEST_P(QueueTest, ATakenItemIsHiddenUntilItIsSettled) {
  Session session = NewSession();
  Queue queue(session, name_);
  ASSERT_TRUE(queue.Push("a").ok() && queue.Push("b").ok());
  auto first = queue.TryTake();
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_EQ((*first)->value(), "a");
  EXPECT_TRUE((*first)->ours());
  EXPECT_EQ(*queue.Size(), 2);
  EXPECT_EQ(Pop(queue, 2), (Strings{"b", "-"}));
  ASSERT_TRUE((*first)->Nack().ok());
  EXPECT_FALSE((*first)->ours());
  EXPECT_EQ((*first)->Ack().code(), absl::StatusCode::kAborted);
  auto again = queue.Take(Soon());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->value(), "a");
  ASSERT_TRUE(again->AckWith({Put(name_ + "-result", "42")}).ok());
  EXPECT_EQ((*client().Get(name_ + "-result"))->value, "42");
  EXPECT_EQ(*queue.Size(), 0);
  ASSERT_TRUE(queue.Push("c").ok());
  { auto dropped = queue.Take(Soon()); }
  auto third = queue.Take(Soon());
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->value(), "c");
}

TEST_P(QueueTest, WhatOneTookWhoDiedComesToTheNext) {
  Session dead = NewSession(), session = NewSession();
  Queue theirs(dead, name_), queue(session, name_);
  ASSERT_TRUE(queue.Push("a").ok());
  auto taken = theirs.Take(Soon());
  ASSERT_TRUE(taken.ok());
  auto waiting = InThread([&] { return queue.Take(Soon()); });
  ASSERT_TRUE(WaitFor([&] { return Count(name_ + "/turn/") == 1; }));
  ASSERT_TRUE(client().Revoke(dead.lease_id()).ok());
  auto again = waiting.get();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->value(), "a");
  EXPECT_EQ(taken->Ack().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(WaitFor([&] { return !taken->ours(); }));
  EXPECT_TRUE(again->Ack().ok());
}

TEST_P(QueueTest, KeepsItsLimits) {
  Session session = NewSession();
  Queue queue(session, name_, {.length_max = 3, .in_flight_max = 2});
  for (const char* value : {"a", "b", "c"}) ASSERT_TRUE(queue.Push(value).ok());
  EXPECT_EQ(queue.Push("d").status().code(), absl::StatusCode::kResourceExhausted);
  auto first = queue.Take(Soon()), second = queue.Take(Soon());
  ASSERT_TRUE(first.ok() && second.ok());
  auto third = queue.TryTake();
  ASSERT_TRUE(third.ok());
  EXPECT_FALSE(third->has_value());
  ASSERT_TRUE(first->Ack().ok());
  third = queue.TryTake();
  ASSERT_TRUE(third.ok() && third->has_value());
  EXPECT_EQ((*third)->value(), "c");
}

TEST_P(QueueTest, LooksPastAWindowOfTakenItems) {
  Session session = NewSession();
  Queue queue(session, name_);
  constexpr int kItems = QueuePlan::kWindow + 5;
  std::vector<TakenItem> taken;
  for (int i = 0; i < kItems; ++i) ASSERT_TRUE(queue.Push(absl::StrCat(i)).ok());
  for (int i = 0; i < kItems; ++i) {
    auto item = queue.TryTake(Soon());
    ASSERT_TRUE(item.ok() && item->has_value()) << i;
    EXPECT_EQ((*item)->value(), absl::StrCat(i));
    taken.push_back(**std::move(item));
  }
  auto none = queue.TryTake(Soon());
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST_P(QueueTest, RefusesWhatCannotBe) {
  Session session = NewSession();
  Queue queue(session, name_);
  EXPECT_EQ(queue.Push("x", {.priority = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue.Push("x", {.priority = 10000}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue.Push(std::string(Queue::kValueMax + 1, 'x')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Queue(session, "").Pop(Soon()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Queue(session, name_, {.in_flight_max = 0}).TryTake().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Queue(Session(), name_).TryPop().status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(session.Close().ok());
  EXPECT_EQ(queue.Pop(Soon()).status().code(), absl::StatusCode::kAborted);
}

INSTANTIATE_TEST_SUITE_P(Servers, QueueTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
