// Candidate: terms follow each other, through resignations, lost leases and outages.
#include "conclave/election/candidate.h"

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/election/election.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::WaitFor;

// Blocks until the stop token fires.
void UntilStopped(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any bell;
  std::unique_lock lock(mutex);
  bell.wait(lock, stop, [] { return false; });
}

class CandidateTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(CandidateTest, TermsGoOnAfterReturnAndAfterALostLease) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  std::atomic<int> terms = 0;
  std::atomic<int64_t> last_term = 0;
  std::atomic<bool> in_order = true;
  Election election(*client, "candidates/a");
  auto candidate = election.RunWhileLeader(
      {.proposal = "a", .ttl = absl::Seconds(3), .cooldown = absl::Milliseconds(5)},
      [&](Leadership& leadership, std::stop_token stop) {
        if (leadership.term() <= last_term) in_order = false;
        last_term = leadership.term();
        if (++terms >= 3) UntilStopped(stop);
        return absl::OkStatus();
      });
  ASSERT_TRUE(candidate.ok()) << candidate.status();
  ASSERT_TRUE(WaitFor([&] { return terms == 3 && candidate->IsLeader(); }));
  auto leader = election.Leader();
  ASSERT_TRUE(leader.ok() && leader->has_value());
  EXPECT_EQ((*leader)->term, last_term);
  ASSERT_TRUE(client->Revoke((*leader)->lease).ok());
  EXPECT_TRUE(WaitFor([&] { return terms == 4 && candidate->IsLeader(); }));
  EXPECT_TRUE(in_order);
}

TEST_P(CandidateTest, OneOfTwoLeadsAndTheOtherFollowsWhenItGoes) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  std::atomic<int> leading = 0;
  std::atomic<bool> both = false;
  const auto term = [&](Leadership&, std::stop_token stop) {
    if (++leading > 1) both = true;
    UntilStopped(stop);
    --leading;
    return absl::OkStatus();
  };
  Election election(*client, "candidates/b");
  std::optional<Candidate> first = *election.RunWhileLeader({.proposal = "first"}, term);
  ASSERT_TRUE(first->Await({.timeout = absl::Seconds(10)}).ok());
  std::optional<Candidate> second = *election.RunWhileLeader({.proposal = "second"}, term);
  first.reset();
  EXPECT_TRUE(second->Await({.timeout = absl::Seconds(10)}).ok());
  second.reset();
  EXPECT_FALSE(both);
  auto nobody = election.Leader();
  ASSERT_TRUE(nobody.ok());
  EXPECT_FALSE(nobody->has_value());
}

// A candidate that leads until it must stop, and counts its terms.
struct Runner {
  std::atomic<int> terms = 0;
  Candidate::Term Function() {
    return [this](Leadership&, std::stop_token stop) {
      ++terms;
      UntilStopped(stop);
      return absl::OkStatus();
    };
  }
};

size_t InQueue(const Election& election) {
  auto participants = election.Participants();
  return participants.ok() ? participants->size() : 0;
}

TEST_P(CandidateTest, TransferHandsTheLeadToTheOneNamedPastThoseBefore) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "candidates/transfer");
  Runner a, b, c;
  auto first = election.RunWhileLeader({.id = "a", .cooldown = absl::ZeroDuration()}, a.Function());
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(first->Await({.timeout = absl::Seconds(10)}).ok());
  auto second = election.RunWhileLeader({.id = "b"}, b.Function());
  ASSERT_TRUE(second.ok());
  ASSERT_TRUE(WaitFor([&] { return InQueue(election) == 2; }));
  auto third = election.RunWhileLeader({.id = "c", .proposal = "c's"}, c.Function());
  ASSERT_TRUE(third.ok());
  ASSERT_TRUE(WaitFor([&] { return InQueue(election) == 3; }));
  EXPECT_EQ(first->TransferTo("d").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(first->TransferTo("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(second->TransferTo("c").code(), absl::StatusCode::kFailedPrecondition);
  const absl::Status transferred = first->TransferTo("c", {.timeout = absl::Seconds(10)});
  EXPECT_TRUE(transferred.ok()) << transferred;
  EXPECT_TRUE(third->Await({.timeout = absl::Seconds(10)}).ok());
  EXPECT_EQ(b.terms, 0);
  EXPECT_TRUE(WaitFor([&] { return c.terms == 1; }));
  // All three are still candidates, the two who made way behind; the mark is gone.
  EXPECT_TRUE(WaitFor([&] { return InQueue(election) == 3; }));
  auto queue = election.Participants();
  ASSERT_TRUE(queue.ok() && !queue->empty());
  EXPECT_EQ(queue->front().id, "c");
  EXPECT_EQ(queue->front().proposal, "c's");
  EXPECT_TRUE(WaitFor([&] {
    auto mark = client->Get("candidates/transfer~next");
    return mark.ok() && !mark->has_value();
  }));
}

TEST_P(CandidateTest, ATransferFromWithinTheTermTakesPlaceWhenItReturns) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "candidates/within");
  std::atomic<bool> go = false;
  std::atomic<int> code = -1;
  std::optional<Candidate> first;  // last: its function uses the others
  first = *election.RunWhileLeader({.id = "a"}, [&](Leadership&, std::stop_token stop) {
    if (!WaitFor([&] { return go || stop.stop_requested(); })) return absl::OkStatus();
    if (!stop.stop_requested()) code = static_cast<int>(first->TransferTo("b").code());
    go = false;
    return absl::OkStatus();
  });
  ASSERT_TRUE(first->Await({.timeout = absl::Seconds(10)}).ok());
  Runner b;
  auto second = election.RunWhileLeader({.id = "b"}, b.Function());
  ASSERT_TRUE(second.ok());
  ASSERT_TRUE(WaitFor([&] { return InQueue(election) == 2; }));
  go = true;
  EXPECT_TRUE(second->Await({.timeout = absl::Seconds(10)}).ok());
  EXPECT_EQ(code, 0);
}

TEST_P(CandidateTest, ALeaderMakesWayForAHigherPriorityThatHasSettled) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "candidates/priority");
  const absl::Duration settle = absl::Milliseconds(100);
  Runner low, high, indifferent;
  auto minor =
      election.RunWhileLeader({.id = "minor", .priority = 1, .settle = settle}, low.Function());
  ASSERT_TRUE(minor.ok());
  ASSERT_TRUE(minor->Await({.timeout = absl::Seconds(10)}).ok());
  auto major = election.RunWhileLeader({.id = "major", .priority = 10}, high.Function());
  ASSERT_TRUE(major.ok());
  EXPECT_TRUE(major->Await({.timeout = absl::Seconds(10)}).ok());
  EXPECT_TRUE(WaitFor([&] { return InQueue(election) == 2; }));
  EXPECT_EQ(low.terms, 1);
  // Without `settle` a priority does not count: the one that leads goes on.
  auto greater = election.RunWhileLeader({.id = "greater", .priority = 99, .settle = settle},
                                         indifferent.Function());
  ASSERT_TRUE(greater.ok());
  ASSERT_TRUE(WaitFor([&] { return InQueue(election) == 3; }));
  EXPECT_EQ(greater->Await({.timeout = 3 * settle}).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(major->IsLeader());
}

TEST_P(CandidateTest, AFunctionThatFailsIsLoggedAndCalledAgain) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  std::mutex mutex;
  std::string log;
  auto client = Client::Connect(
      {.endpoints = cluster->endpoints(), .log_sink = [&](LogLevel, std::string_view line) {
         std::lock_guard lock(mutex);
         log += line;
       }});
  ASSERT_TRUE(client.ok());
  std::atomic<int> terms = 0;
  auto candidate =
      Election(*client, "candidates/failing")
          .RunWhileLeader({.cooldown = absl::Milliseconds(1)}, [&](Leadership&, std::stop_token) {
            ++terms;
            return absl::InternalError("out of ideas");
          });
  ASSERT_TRUE(candidate.ok());
  EXPECT_TRUE(WaitFor([&] { return terms >= 3; }));
  std::lock_guard lock(mutex);
  EXPECT_NE(log.find("out of ideas"), std::string::npos);
  EXPECT_NE(log.find("candidates/failing"), std::string::npos);
}

TEST_P(CandidateTest, MayGoInItsOwnFunction) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "candidates/suicide");
  std::promise<void> made;
  std::promise<bool> stopped;
  std::optional<Candidate> candidate;
  candidate = *election.RunWhileLeader(
      {}, [&candidate, &made, &stopped](Leadership&, std::stop_token stop) {
        made.get_future().wait();
        candidate.reset();
        stopped.set_value(stop.stop_requested());
        return absl::OkStatus();
      });
  made.set_value();
  EXPECT_TRUE(stopped.get_future().get());
  EXPECT_TRUE(WaitFor([&] { return InQueue(election) == 0; }));
}

TEST_P(CandidateTest, RefusesWhatCannotBe) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto client = Client::Connect({.endpoints = cluster->endpoints()});
  ASSERT_TRUE(client.ok());
  Election election(*client, "candidates/bad");
  Runner runner;
  const auto code = [&](const CandidateOptions& options) {
    return election.RunWhileLeader(options, runner.Function()).status().code();
  };
  EXPECT_EQ(code({.ttl = absl::Milliseconds(10)}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.cooldown = -absl::Seconds(1)}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.settle = -absl::Seconds(1)}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.id = std::string(300, 'x')}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(election.RunWhileLeader({}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  Election nameless(*client, "");
  EXPECT_EQ(nameless.RunWhileLeader({}, runner.Function()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(nameless.Leader().status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Servers, CandidateTest, ::testing::ValuesIn(AllServers()), ServerName);

class CandidateFaultTest : public ::testing::TestWithParam<ServerUnderTest> {};

TEST_P(CandidateFaultTest, LeadsAgainAfterTheServerWasGoneForLongerThanItsLease) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  auto client = Client::Connect(
      {.endpoints = cluster->endpoints(), .log_sink = [](LogLevel, std::string_view) {}});
  ASSERT_TRUE(client.ok());
  std::atomic<int> terms = 0;
  std::atomic<int64_t> last_term = 0;
  std::atomic<bool> in_order = true;
  auto candidate = Election(*client, "e")
                       .RunWhileLeader({.ttl = absl::Seconds(2)},
                                       [&](Leadership& leadership, std::stop_token stop) {
                                         if (leadership.term() <= last_term) in_order = false;
                                         last_term = leadership.term();
                                         ++terms;
                                         UntilStopped(stop);
                                         return absl::OkStatus();
                                       });
  ASSERT_TRUE(candidate.ok());
  ASSERT_TRUE(candidate->Await({.timeout = absl::Seconds(10)}).ok());
  cluster->Kill(0);
  // The silent server does not keep us in office: the local deadline ends it.
  EXPECT_TRUE(WaitFor([&] { return !candidate->IsLeader(); }));
  EXPECT_FALSE(candidate->term().has_value());
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EXPECT_TRUE(candidate->Await({.timeout = absl::Seconds(20)}).ok());
  EXPECT_TRUE(WaitFor([&] { return terms == 2; }));  // the function begins just behind it
  EXPECT_TRUE(in_order);
}

INSTANTIATE_TEST_SUITE_P(Servers, CandidateFaultTest, ::testing::ValuesIn(SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
