// Host names behind the channel's back, with a resolver of the test's own; and the worker that it
// runs on.
#include "conclave/discovery/host_resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "conclave/discovery/worker.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::WaitFor;

class HostResolverTest : public ::testing::Test {
 protected:
  HostResolver::Resolve Fake() {
    return [this](const std::string& host) -> absl::StatusOr<std::vector<std::string>> {
      ++asked_;
      absl::MutexLock lock(&mutex_);
      if (!answer_.ok()) return answer_.status();
      return host == "h" ? *answer_ : std::vector<std::string>{};
    };
  }
  void Answer(absl::StatusOr<std::vector<std::string>> answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
  }

  absl::Mutex mutex_;
  absl::StatusOr<std::vector<std::string>> answer_ = std::vector<std::string>{"10.0.0.1"};
  std::atomic<int> asked_ = 0;
  std::atomic<int> told_ = 0;
  std::shared_ptr<Worker> worker_ = std::make_shared<Worker>();
};

TEST_F(HostResolverTest, AnswersLaterFollowsChangesAndKeepsTheLastGoodAnswer) {
  auto resolver = std::make_shared<HostResolver>(worker_, absl::Milliseconds(5), Fake());
  const uint64_t number = resolver->Join([this] { ++told_; });
  const auto want = [&] { return resolver->Want(number, {"h"}).at("h"); };
  want();
  ASSERT_TRUE(WaitFor([&] { return told_ == 1; }));
  EXPECT_THAT(want().addresses, ElementsAre("10.0.0.1"));

  Answer(std::vector<std::string>{"10.0.0.2", "10.0.0.3"});
  ASSERT_TRUE(WaitFor([&] { return told_ == 2; }));
  EXPECT_THAT(want().addresses, ElementsAre("10.0.0.2", "10.0.0.3"));

  Answer(absl::UnavailableError("no name server"));
  ASSERT_TRUE(WaitFor([&] { return told_ == 3; }));
  EXPECT_THAT(want().addresses, ElementsAre("10.0.0.2", "10.0.0.3"));
  EXPECT_EQ(want().error, "no name server");
  resolver->Leave(number);
}

TEST_F(HostResolverTest, ANameThatNobodyWantsIsNotAskedForAnyMore) {
  auto resolver = std::make_shared<HostResolver>(worker_, absl::Milliseconds(1), Fake());
  const uint64_t number = resolver->Join([this] { ++told_; });
  EXPECT_FALSE(resolver->Want(number, {"h"}).at("h").resolved);
  ASSERT_TRUE(WaitFor([&] { return asked_ > 3; }));
  resolver->Want(number, {});
  // The refresh that was due finds that out; behind it nothing of this name is left on the worker.
  ASSERT_TRUE(WaitFor([&] {
    const int before = asked_;
    absl::Notification later;
    worker_->RunAfter(absl::Milliseconds(20), [&] { later.Notify(); });
    later.WaitForNotification();
    return asked_ == before;
  }));
  resolver->Leave(number);
}

TEST_F(HostResolverTest, ResolvesTheNamesOfThisMachine) {
  const auto addresses = HostResolver::System("localhost");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, Contains("127.0.0.1"));
  EXPECT_FALSE(HostResolver::System("no-such-host.invalid").ok());
}

TEST(WorkerTest, RunsJobsInTheOrderOfTheirTimes) {
  Worker worker;
  std::vector<int> order;
  absl::Notification done;
  // Far enough apart for a thread that is not run for a while between these lines.
  worker.RunAfter(absl::Milliseconds(1'000), [&] {
    order.push_back(3);
    done.Notify();
  });
  worker.RunAfter(absl::ZeroDuration(), [&] { order.push_back(1); });
  worker.RunAfter(absl::Milliseconds(500), [&] { order.push_back(2); });
  done.WaitForNotification();
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(WorkerTest, MayBeDestroyedByItsOwnJob) {
  auto worker = std::make_shared<Worker>();
  Worker* raw = worker.get();
  auto done = std::make_shared<absl::Notification>();
  raw->RunAfter(absl::ZeroDuration(), [worker = std::move(worker), done]() mutable {
    worker.reset();
    done->Notify();
  });
  EXPECT_TRUE(done->WaitForNotificationWithTimeout(absl::Seconds(10)));
}

}  // namespace
}  // namespace conclave
