// Candidate: terms follow each other, through resignations, lost leases and outages.
#include "conclave/election/candidate.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;
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
  Candidate candidate(*client, "candidates/a",
                      {.proposal = "a", .ttl = absl::Seconds(3), .cooldown = absl::Milliseconds(5)},
                      [&](Leadership& leadership, std::stop_token stop) {
                        if (leadership.term() <= last_term) in_order = false;
                        last_term = leadership.term();
                        if (++terms >= 3) UntilStopped(stop);
                      });
  ASSERT_TRUE(WaitFor([&] { return terms == 3 && candidate.IsLeader(); }));
  Election election(*client, "candidates/a");
  auto leader = election.Leader();
  ASSERT_TRUE(leader.ok() && leader->has_value());
  EXPECT_EQ((*leader)->term, last_term);
  ASSERT_TRUE(client->Revoke((*leader)->lease).ok());
  EXPECT_TRUE(WaitFor([&] { return terms == 4 && candidate.IsLeader(); }));
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
  };
  std::optional<Candidate> first, second;
  first.emplace(*client, "candidates/b", CandidateOptions{.proposal = "first"}, term);
  ASSERT_TRUE(WaitFor([&] { return first->IsLeader(); }));
  second.emplace(*client, "candidates/b", CandidateOptions{.proposal = "second"}, term);
  first.reset();
  EXPECT_TRUE(WaitFor([&] { return second->IsLeader(); }));
  second.reset();
  EXPECT_FALSE(both);
  auto nobody = Election(*client, "candidates/b").Leader();
  ASSERT_TRUE(nobody.ok());
  EXPECT_FALSE(nobody->has_value());
}

INSTANTIATE_TEST_SUITE_P(Servers, CandidateTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
